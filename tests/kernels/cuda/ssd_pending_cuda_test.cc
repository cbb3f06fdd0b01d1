// Steps that defer writing S on the device: against plain steps of the CPU, whose own deferring is
// held to those, too (tests/kernels/ssd_pending_test.cc).
#include "tests/kernels/cuda/ssd_inputs.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

using Shape = SsdShape;

// What slots hold, between launches.
struct Slots {
  Floats state, x, b, dt;
  std::vector<double> t;
  std::vector<int32_t> pending;  // by sequence
};

// The tokens of one step.
struct Token {
  LaunchPlan plan;
  std::vector<int32_t> after;  // by place in the plan; -1: the sequence does not defer
};

struct Deferring : SsdInputs {
  DType state_dtype;
  int32_t room;
  int64_t slots;

  Deferring(Shape s, int32_t tokens, size_t seqs, int64_t length, DType type, DType state_type,
            Random& random)
      : SsdInputs(s, std::vector<int64_t>(seqs, length), type, random),
        state_dtype(state_type),
        room(tokens),
        slots(2 * static_cast<int64_t>(seqs) + 1) {}

  Slots Begin(Random& random) const {
    Slots out;
    out.state = KeptAs(DType::kBFloat16, random.Normals(slots * slot_stride));
    for (int64_t slot = 1; slot <= slots; ++slot) {  // in int8 what lies between slots is lost
      std::fill_n(out.state.begin() + slot * slot_stride - kSlotPad, kSlotPad, 0.0f);
    }
    out.t.assign(static_cast<size_t>(slots * shape.heads), 2.5);
    // What was never written must not be read.
    out.x.assign(static_cast<size_t>(slots * room * x.width), kPoison);
    out.b.assign(static_cast<size_t>(slots * room * b.width), kPoison);
    out.dt.assign(static_cast<size_t>(slots * room * shape.heads), kPoison);
    out.pending.assign(lengths.size(), 0);
    return out;
  }

  // Sizes and slots, in `memory`; Get brings them back.
  SsdScanParams Put(const Slots& from, DType state_in, const Packing& packing, Memory::Where where,
                    Memory& memory) const {
    SsdScanParams p = ParamsOf(packing, where, memory);
    p.dt_hi = std::numeric_limits<float>::infinity();
    const StateSlots in = SlotsOf(state_in);
    p.state = in.Put(from.state, memory), p.state_slot_stride = in.stride();
    p.t_sum = memory.Put(from.t), p.t_slot_stride = shape.heads;
    p.pending.room = room;
    p.pending.x = memory.PutActs(from.x, dtype), p.pending.x_slot_stride = room * x.width;
    p.pending.b = memory.PutActs(from.b, dtype), p.pending.b_slot_stride = room * b.width;
    p.pending.dt = memory.Put(from.dt), p.pending.dt_slot_stride = int64_t{room} * shape.heads;
    p.pending.share_slot_stride = int64_t{shape.heads} * SsdPending::kShares;
    p.pending.share = memory.Put(Floats(static_cast<size_t>(slots * p.pending.share_slot_stride)));
    return p;
  }
  void Get(const SsdScanParams& p, const Memory& memory, Slots& to) const {
    to.state = SlotsOf(p.state.dtype).Get(memory, p.state, to.state.size());
    to.t = memory.Get(p.t_sum, to.t.size());
    to.x = memory.GetActs(p.pending.x, to.x.size());
    to.b = memory.GetActs(p.pending.b, to.b.size());
    to.dt = memory.Get(p.pending.dt, to.dt.size());
  }

  Floats Step(Slots& of, DType state_in, const Token& token, Memory::Where where,
              const Launch& launch) const {
    Memory memory(where);
    const Packing packing(token.plan);
    SsdScanParams p = Put(of, state_in, packing, where, memory);
    p.x = memory.PutActs(x.Gather(token.plan, x.width), dtype), p.x_stride = x.width;
    p.b = memory.PutActs(b.Gather(token.plan, b.width), dtype), p.b_stride = b.width;
    p.c = memory.PutActs(c.Gather(token.plan, c.width), dtype), p.c_stride = c.width;
    p.dt = memory.PutActs(dt.Gather(token.plan, dt.width), dtype), p.dt_stride = dt.width;
    const size_t outputs = static_cast<size_t>(packing.row_start.back() * x.width);
    p.y = memory.PutActs(Floats(outputs, kPoison), dtype), p.y_stride = x.width;
    std::vector<int32_t> before, after;
    for (size_t i = 0; i < token.plan.size(); ++i) {
      int32_t& pending = of.pending[static_cast<size_t>(token.plan[i].seq)];
      const bool defers = token.after[i] >= 0;
      before.push_back(defers ? pending : -1);
      after.push_back(defers ? token.after[i] : 0);
      p.pending.deferring += defers;
      pending = after.back();
    }
    p.pending.before = memory.Put(before), p.pending.after = memory.Put(after);
    const absl::Status status =
        where == Memory::Where::kHost ? SsdScan(p, launch) : cuda::SsdScan(p, launch);
    EXPECT_TRUE(status.ok()) << status;
    Get(p, memory, of);
    return memory.GetActs(p.y, outputs);
  }

  void Fold(Slots& of, int64_t position, const Launch& launch) const {
    Memory memory(Memory::Where::kDevice);
    LaunchPlan plan;
    for (size_t i = 0; i < lengths.size(); ++i) {
      plan.push_back({static_cast<int>(i), position, position});
    }
    SsdScanParams p = Put(of, state_dtype, Packing(plan), Memory::Where::kDevice, memory);
    p.pending.deferring = static_cast<int32_t>(lengths.size());
    p.pending.before = memory.Put(of.pending);
    p.pending.after = memory.Put(std::vector<int32_t>(lengths.size(), 0));
    const absl::Status status = cuda::SsdFold(p, launch);
    EXPECT_TRUE(status.ok()) << status;
    Get(p, memory, of);
    of.pending.assign(lengths.size(), 0);
  }
};

// Roundings are relative to what is added up: `unit` of the largest value there is.
void ExpectNear(const Floats& got, const Floats& want, double unit, const char* what) {
  double largest = 0;
  for (float v : want) largest = std::max(largest, std::abs(static_cast<double>(v)));
  EXPECT_TRUE(AllNear(got, want, std::vector<double>(want.size(), unit * largest))) << what;
}

class SsdPendingCudaTest : public CudaKernelTest {
 protected:
  // Sequences with different counts of pending tokens, each folded at points of its own.
  void ExpectPlain(const Shape& shape, int32_t room, size_t seqs, int64_t length, DType dtype,
                   DType state_dtype, uint32_t seed) {
    SCOPED_TRACE(::testing::Message()
                 << shape.head_dim << " x " << shape.state_dim << ", room " << room << ", dtype "
                 << static_cast<int>(dtype) << ", state " << static_cast<int>(state_dtype));
    Random random(seed);
    const Deferring s(shape, room, seqs, length, dtype, state_dtype, random);
    Slots plain = s.Begin(random), deferred = plain;
    const double state_unit = state_dtype == DType::kInt8       ? 0.04
                              : state_dtype == DType::kBFloat16 ? 0.02
                                                                : 8e-6;
    const double unit = state_unit + (dtype == DType::kBFloat16 ? kBf16Unit : 0);
    for (int64_t t = 0; t < length; ++t) {
      Token token;
      for (size_t i = seqs; i > 0; --i) {
        token.plan.push_back({static_cast<int>(i - 1), t, t + 1});
        const int32_t pending = deferred.pending[i - 1];
        const bool folds = pending == room || random.Int(0, 9) == 0;
        token.after.push_back(folds ? 0 : pending + 1);
        // Now and then a sequence takes a plain step between the others.
        if (pending == 0 && random.Int(0, 3) == 0) token.after.back() = -1;
      }
      Token whole = token;
      whole.after.assign(seqs, -1);
      const Floats want = s.Step(plain, DType::kFloat32, whole, Memory::Where::kHost, {});
      const Floats got = s.Step(deferred, state_dtype, token, Memory::Where::kDevice, launch_);
      ExpectNear(got, want, unit, "y");
      if (HasFailure()) return;
    }
    s.Fold(deferred, length, launch_);
    ExpectNear(deferred.state, plain.state, state_unit, "state");
    for (size_t i = 0; i < plain.t.size(); ++i) EXPECT_NEAR(deferred.t[i], plain.t[i], 1e-3);
  }
};

TEST_F(SsdPendingCudaTest, GivesWhatPlainStepsGiveForAnyShape) {
  uint32_t seed = 0;
  for (const Shape& shape : {Shape{4, 64, 128, 1},
                             {4, 64, 64, 2},
                             {2, 40, 256, 1},
                             {3, 80, 128, 3},
                             {2, 6, 128, 1},
                             {2, 9, 40, 1},
                             {2, 16, 16, 2},
                             {1, 5, 33, 1}}) {
    for (DType dtype : kBothDTypes) {
      for (DType state_dtype : kStateDTypes) {
        if (state_dtype == DType::kInt8 && shape.state_dim % kInt8Group != 0) continue;
        const int32_t room = seed % 3 == 0 ? SsdPending::kMost : seed % 3 == 1 ? 7 : 1;
        ExpectPlain(shape, room, 4, 36, dtype, state_dtype, ++seed);
      }
    }
  }
}

// Enough blocks for the shapes of large batches.
TEST_F(SsdPendingCudaTest, GivesWhatPlainStepsGiveForManySequences) {
  if (SmallShapes()) GTEST_SKIP() << "left out";
  for (DType state_dtype : kStateDTypes) {
    for (const int32_t states : {64, 128, 256}) {
      ExpectPlain({64, 64, states, 1}, SsdPending::kMost, 10, 20, DType::kBFloat16, state_dtype, 7);
    }
  }
}

// From 64 on, what the rows of a head share comes from a kernel of its own.
TEST_F(SsdPendingCudaTest, GivesWhatPlainStepsGiveWithSharesAhead) {
  if (SmallShapes()) GTEST_SKIP() << "left out";
  for (DType state_dtype : kStateDTypes) {
    for (const int32_t states : {64, 128, 256}) {
      ExpectPlain({8, 64, states, 1}, SsdPending::kMost, 66, 18, DType::kBFloat16, state_dtype, 8);
    }
    ExpectPlain({40, 12, 64, 2}, 7, 66, 18, DType::kBFloat16, state_dtype, 9);
    ExpectPlain({6, 40, 128, 3}, 7, 64, 18, DType::kFloat32, state_dtype, 10);
  }
}

TEST_F(SsdPendingCudaTest, SameBitsWhateverElseIsInTheLaunchAndHoweverItIsFolded) {
  for (const Shape& shape : {Shape{4, 64, 128, 1}, {2, 9, 40, 1}}) {
    for (DType state_dtype : kBothDTypes) {
      Random random(5);
      const Deferring s(shape, 7, 2, 6, DType::kBFloat16, state_dtype, random);
      const Slots start = s.Begin(random);
      Slots alone = start, together = start, apart = start;
      const auto step = [&](Slots& slots, const Token& token) {
        return s.Step(slots, state_dtype, token, Memory::Where::kDevice, launch_);
      };
      for (int64_t t = 0; t < 6; ++t) {
        const auto count = static_cast<int32_t>(t + 1);
        const Floats one = step(alone, {{{1, t, t + 1}}, {count}});
        const Floats two =
            step(together, {{{1, t, t + 1}, {0, t, t + 1}}, {count, t % 2 == 0 ? 1 : 0}});
        EXPECT_TRUE(SameBits(one.data(), two.data(), one.size() * sizeof(float))) << t;
        EXPECT_TRUE(SameBits(one, step(apart, {{{1, t, t + 1}}, {t == 5 ? 0 : count}}))) << t;
      }
      s.Fold(alone, 6, launch_);
      s.Fold(together, 6, launch_);
      const int64_t at = Packing::SlotOf(1) * s.slot_stride;
      const auto bytes = static_cast<size_t>(s.slot_stride) * sizeof(float);
      EXPECT_TRUE(SameBits(alone.state.data() + at, together.state.data() + at, bytes));
      EXPECT_TRUE(SameBits(alone.state, apart.state)) << "folded with the last token";
      const Floats folded = alone.state;
      s.Fold(alone, 6, launch_);
      EXPECT_TRUE(SameBits(alone.state, folded)) << "nothing is pending any more";
    }
  }
}

TEST_F(SsdPendingCudaTest, NanStaysInItsSequence) {
  for (DType state_dtype : kBothDTypes) {
    Random random(9);
    Deferring s({4, 64, 128, 1}, 7, 2, 3, DType::kBFloat16, state_dtype, random);
    s.x.of[1][70] = kPoison;
    Slots slots = s.Begin(random);
    Floats y;
    for (int64_t t = 0; t < 3; ++t) {
      const auto count = static_cast<int32_t>(t + 1);
      y = s.Step(slots, state_dtype, {{{0, t, t + 1}, {1, t, t + 1}}, {count, count}},
                 Memory::Where::kDevice, launch_);
    }
    s.Fold(slots, 3, launch_);
    for (int64_t i = 0; i < s.x.width; ++i) EXPECT_FALSE(std::isnan(y[static_cast<size_t>(i)]));
    EXPECT_TRUE(std::isnan(y[static_cast<size_t>(s.x.width + 70)]));
    const int64_t row = Packing::SlotOf(1) * s.slot_stride + 70 * 128;
    EXPECT_TRUE(std::isnan(slots.state[static_cast<size_t>(row)])) << "NaN must not be a number";
    EXPECT_FALSE(std::isnan(slots.state[static_cast<size_t>(row + 128)]));
  }
}

TEST_F(SsdPendingCudaTest, RefusesNonsense) {
  SsdScanParams p;
  p.rows.num_seqs = 1;
  p.pending.deferring = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::SsdFold(p, launch_)));
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::SsdFold(p, {})));
  p.pending.deferring = 0;
  EXPECT_TRUE(cuda::SsdFold(p, launch_).ok()) << "nothing is pending, nothing to do";
}

}  // namespace
}  // namespace anabranch::kernels
