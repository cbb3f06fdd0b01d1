// The CUDA scan against the CPU's. As for the other scan, the CPU kernel run on absolute values
// gives the sizes of the sums that roundings are relative to.
#include "tests/kernels/cuda/cuda_testing.h"
#include "tests/kernels/cuda/state_slots.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Result {
  Sequences y;
  Floats state;
  std::vector<double> t_sum;
  Floats kept;  // by place
  std::vector<double> kept_t;
};

Floats Absolute(Floats values) {
  for (float& v : values) v = std::abs(v);
  return values;
}
Sequences Absolute(Sequences values) {
  for (Floats& v : values.of) v = Absolute(v);
  return values;
}

struct Scan {
  int64_t channels;
  int32_t state_dim;
  DType dtype;
  DType state_dtype = DType::kFloat32;
  bool gate = true;
  int64_t pad = 0;
  std::vector<int64_t> lengths;
  Sequences u, dt, b, c, z;
  Floats a, d, dt_bias, state0;
  std::vector<double> t0;
  int64_t slot_stride, t_stride;
  std::vector<int32_t> keep;  // rows of a launch

  Scan(int64_t channels, int32_t state_dim, std::vector<int64_t> n, DType type, uint32_t seed)
      : channels(channels), state_dim(state_dim), dtype(type), lengths(std::move(n)) {
    Random random(seed);
    const auto make = [&](int64_t width, float scale) {
      Sequences out = Sequences::Make(lengths, width, random, scale);
      for (Floats& of : out.of) of = KeptAs(dtype, of);
      return out;
    };
    u = make(channels, 1), dt = make(channels, 2), z = make(channels, 2);
    b = make(state_dim, 1), c = make(state_dim, 1);
    for (int64_t i = 0; i < channels * state_dim; ++i) a.push_back(-random.Uniform(0.01f, 4));
    d = random.Normals(channels), dt_bias = random.Normals(channels);
    for (float& v : dt_bias) v -= 3;
    slot_stride = channels * state_dim + kSlotPad, t_stride = channels + 1;
    const int64_t slots = 2 * static_cast<int64_t>(lengths.size()) + 1;
    state0 = random.Normals(slots * slot_stride);
    for (int64_t i = 0; i < slots * t_stride; ++i) t0.push_back(random.Uniform(0, 9));
  }

  void Launch1(const LaunchPlan& plan, Memory::Where where, const Launch& launch,
               Result& out) const {
    Memory memory(where);
    const Packing packing(plan);
    SelectiveScanParams p;
    p.rows = memory.PutRows(packing);
    if (where == Memory::Where::kHost) p.rows = packing.rows();
    p.channels = channels, p.state_dim = state_dim;
    p.u_stride = p.dt_stride = p.y_stride = channels + pad, p.z_stride = channels + 2 * pad;
    p.b_stride = p.c_stride = state_dim + pad;
    p.u = memory.PutActs(u.Gather(plan, p.u_stride), dtype);
    p.dt = memory.PutActs(dt.Gather(plan, p.dt_stride), dtype);
    p.b = memory.PutActs(b.Gather(plan, p.b_stride), dtype);
    p.c = memory.PutActs(c.Gather(plan, p.c_stride), dtype);
    if (gate) p.z = memory.PutActs(z.Gather(plan, p.z_stride), dtype);
    p.a = memory.Put(a), p.d = memory.Put(d), p.dt_bias = memory.Put(dt_bias);
    const StateSlots slots = SlotsOf();
    p.state = slots.Put(out.state, memory), p.state_slot_stride = slots.stride();
    p.state_scales = slots.elements;
    p.positions = memory.Put(packing.position), p.rounding_seed = 3;
    p.t_sum = memory.Put(out.t_sum), p.t_slot_stride = t_stride;
    const auto count = static_cast<size_t>(packing.row_start.back() * p.y_stride);
    p.y = memory.PutActs(Floats(count, kPoison), dtype);
    const size_t kept = keep.size() * static_cast<size_t>(slot_stride);
    const size_t kept_t = keep.size() * static_cast<size_t>(t_stride);
    if (!keep.empty()) {
      p.checkpoints = {static_cast<int32_t>(keep.size()), memory.Put(keep),
                       memory.Put(BackwardPlaces(keep.size()))};
      p.checkpoint_state = slots.Put(Floats(kept, -77.0f), memory);
      p.checkpoint_t = memory.Put(std::vector<double>(kept_t, -77.0));
      p.checkpoint_state_stride = slots.stride(), p.checkpoint_t_stride = t_stride;
    }
    const absl::Status status =
        where == Memory::Where::kHost ? SelectiveScan(p, launch) : cuda::SelectiveScan(p, launch);
    ASSERT_TRUE(status.ok()) << status;
    out.state = slots.Get(memory, p.state, out.state.size());
    out.t_sum = memory.Get(p.t_sum, out.t_sum.size());
    out.kept = slots.Get(memory, p.checkpoint_state, kept);
    out.kept_t = memory.Get(p.checkpoint_t, kept_t);
    out.y.Scatter(plan, memory.GetActs(p.y, count), p.y_stride);
  }
  Result Run(const Plan& plan, Memory::Where where, const Launch& launch) const {
    Result out{Sequences::Poisoned(lengths, channels), state0, t0, {}, {}};
    for (const LaunchPlan& one : plan) Launch1(one, where, launch, out);
    return out;
  }
  StateSlots SlotsOf() const { return {state_dtype, slot_stride - kSlotPad}; }
  Scan Sizes() const {
    Scan out = *this;
    out.u = Absolute(u), out.b = Absolute(b), out.c = Absolute(c);
    out.d = Absolute(d), out.state0 = Absolute(state0);
    return out;
  }
};

// A step rounds a few times: 12 for dt, the decay and the products; what is as old as t steps has
// been rounded t times. A sum of state_dim terms adds state_dim, the gate 64. The decays of the
// fast path are right to 4 units more in the exponent's argument, of which e^x keeps |x| <= 1 at
// its largest effect.
void ExpectSame(const Scan& s, const Plan& plan, const Launch& cuda) {
  const Result want = s.Run(plan, Memory::Where::kHost, {});
  const Result size = s.Sizes().Run(plan, Memory::Where::kHost, {});
  const Result got = s.Run(plan, Memory::Where::kDevice, cuda);
  const int64_t longest = *std::max_element(s.lengths.begin(), s.lengths.end());
  // A state that is rounded lies on the one or the other side of what both sides agree on, and y of
  // later launches with it.
  const double later = plan.size() == 1                    ? 0
                       : s.state_dtype == DType::kBFloat16 ? 2 * kBf16Unit
                       : s.state_dtype == DType::kInt8     ? 0.1
                                                           : 0;
  const double exact = kUnit * static_cast<double>(16 * (longest + 1) + s.state_dim + 64);
  for (size_t i = 0; i < s.lengths.size(); ++i) {
    std::vector<double> tolerance;
    for (size_t j = 0; j < want.y.of[i].size(); ++j) {
      tolerance.push_back((exact + later) * std::abs(size.y.of[i][j]) +
                          UnitOf(s.dtype) * std::abs(want.y.of[i][j]) + 1e-30);
    }
    EXPECT_TRUE(AllNear(got.y.of[i], want.y.of[i], tolerance)) << "sequence " << i;
  }
  const auto launches = static_cast<double>(plan.size());
  std::vector<double> tolerance(want.state.size(), 0);
  s.SlotsOf().AddRoundings(size.state, launches, tolerance);
  for (size_t i = 0; i < s.lengths.size(); ++i) {
    const int64_t at = Packing::SlotOf(static_cast<int>(i)) * s.slot_stride;
    for (int64_t j = at; j < at + s.slot_stride - kSlotPad; ++j) {
      tolerance[static_cast<size_t>(j)] += exact * size.state[static_cast<size_t>(j)];
    }
  }
  EXPECT_TRUE(AllNear(got.state, want.state, tolerance)) << "state";
  tolerance.clear();
  for (float v : size.kept) tolerance.push_back(exact * std::abs(v));
  s.SlotsOf().AddRoundings(size.kept, launches, tolerance);
  EXPECT_TRUE(AllNear(got.kept, want.kept, tolerance)) << "checkpoints";
  for (size_t i = 0; i < want.kept_t.size(); ++i) {
    EXPECT_NEAR(got.kept_t[i], want.kept_t[i], 16 * kUnit * (1 + std::abs(want.kept_t[i]))) << i;
  }
  for (size_t i = 0; i < want.t_sum.size(); ++i) {
    EXPECT_NEAR(got.t_sum[i], want.t_sum[i], 16 * kUnit * (1 + want.t_sum[i])) << "T " << i;
  }
}

class SelectiveScanCudaTest : public CudaKernelTest {};

TEST_F(SelectiveScanCudaTest, MatchesTheCpuForAnyShape) {
  for (DType dtype : kBothDTypes) {
    for (int32_t state_dim : {1, 8, 16, 24, 64, 65, 256}) {
      for (int64_t channels : {1, 37, 64}) {
        for (int64_t pad : {0, 3, 8}) {
          Scan s(channels, state_dim, {5, 0, 1, 70}, dtype, static_cast<uint32_t>(state_dim));
          s.pad = pad, s.gate = channels != 37;
          SCOPED_TRACE(::testing::Message() << channels << " x " << state_dim << ", padded by "
                                            << pad << ", dtype " << static_cast<int>(dtype));
          ExpectSame(s,
                     {{{0, 0, 5}, {1, 0, 0}, {2, 0, 1}, {3, 0, 33}}, {{3, 33, 34}}, {{3, 34, 70}}},
                     launch_);
        }
      }
    }
  }
}

TEST_F(SelectiveScanCudaTest, StatesInBfloat16AreRoundedAsOnTheCpu) {
  for (DType dtype : kBothDTypes) {
    for (int32_t state_dim : {16, 20, 64}) {
      Scan s(72, state_dim, {70, 5, 4}, dtype, 5);
      s.state_dtype = DType::kBFloat16;
      s.state0 = KeptAs(s.state_dtype, s.state0);
      SCOPED_TRACE(state_dim);
      ExpectSame(s,
                 {{{0, 0, 40}, {1, 0, 5}, {2, 0, 1}},
                  {{2, 1, 2}, {0, 40, 41}},
                  {{2, 2, 3}, {0, 41, 70}},
                  {{2, 3, 4}}},
                 launch_);
      s.keep = {0, 31, 69, 71, 74, 75, 78};
      ExpectSame(s, {{{0, 0, 70}, {1, 0, 5}, {2, 0, 4}}}, launch_);
    }
  }
}

TEST_F(SelectiveScanCudaTest, StatesInInt8AreRoundedAsOnTheCpu) {
  for (DType dtype : kBothDTypes) {
    for (int32_t state_dim : {16, 48, 64, 256}) {
      SCOPED_TRACE(state_dim);
      const auto scan = [&](std::vector<int64_t> lengths) {
        Scan s(72, state_dim, std::move(lengths), dtype, 6);
        s.state_dtype = DType::kInt8;
        return s;
      };
      Scan s = scan({70, 5, 1});
      s.keep = {0, 31, 69, 71, 74, 75};
      ExpectSame(s, {{{0, 0, 70}, {1, 0, 5}, {2, 0, 1}}}, launch_);
      Scan step = scan({1, 1});
      step.keep = {0, 1};
      ExpectSame(step, {{{1, 0, 1}, {0, 0, 1}}}, launch_);
      ExpectSame(scan({70, 2}), {{{1, 0, 1}, {0, 0, 41}}, {{1, 1, 2}, {0, 41, 70}}}, launch_);
    }
  }
}

// So many that a thread has several channels.
TEST_F(SelectiveScanCudaTest, StepsOfManySequences) {
  for (DType dtype : kBothDTypes) {
    for (DType state_dtype : kStateDTypes) {
      Scan s(200, 16, std::vector<int64_t>(1100, 2), dtype, 9);
      s.state_dtype = state_dtype;
      s.state0 = KeptAs(state_dtype, s.state0);
      Plan steps(2);
      for (int seq = 0; seq < 1100; ++seq) {
        for (int64_t t = 0; t < 2; ++t) steps[static_cast<size_t>(t)].push_back({seq, t, t + 1});
      }
      ExpectSame(s, steps, launch_);
    }
  }
}

TEST_F(SelectiveScanCudaTest, StepsOfOneToken) {
  for (DType dtype : kBothDTypes) {
    for (int32_t state_dim : {16, 20}) {
      const Scan s(200, state_dim, {4, 4, 4}, dtype, 3);
      Plan steps;
      for (int64_t t = 0; t < 4; ++t)
        steps.push_back({{1, t, t + 1}, {0, t, t + 1}, {2, t, t + 1}});
      ExpectSame(s, steps, launch_);
    }
  }
}

TEST_F(SelectiveScanCudaTest, LongSequencesOfDifferentLengths) {
  for (DType dtype : kBothDTypes) {
    const Scan s(72, 16, {300, 0, 128, 33, 1, 127}, dtype, 13);
    ExpectSame(s, {{{0, 0, 300}, {1, 0, 0}, {2, 0, 128}, {3, 0, 33}, {4, 0, 1}, {5, 0, 127}}},
               launch_);
  }
}

TEST_F(SelectiveScanCudaTest, SameBitsWhateverElseIsInTheLaunch) {
  const Scan s(64, 16, {90, 70, 5, 1}, DType::kBFloat16, 17);
  const Result alone = s.Run(EachAlone(s.lengths), Memory::Where::kDevice, launch_);
  const Result packed =
      s.Run({{{2, 0, 5}, {0, 0, 90}, {1, 0, 70}, {3, 0, 1}}}, Memory::Where::kDevice, launch_);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(SameBits(alone.y.of[i], packed.y.of[i])) << i;
  EXPECT_TRUE(SameBits(alone.state, packed.state));
  EXPECT_TRUE(SameBits(alone.t_sum, packed.t_sum));
}

TEST_F(SelectiveScanCudaTest, CheckpointsAreTheCpusAndChangeNothingElse) {
  const Plan plan = {{{0, 0, 300}, {1, 0, 5}, {3, 0, 0}, {2, 0, 1}, {4, 0, 128}}};
  for (DType dtype : kBothDTypes) {
    for (int32_t state_dim : {16, 40}) {
      Scan s(40, state_dim, {300, 5, 1, 0, 128}, dtype, 37);
      const Result without = s.Run(plan, Memory::Where::kDevice, launch_);
      s.keep = {0, 31, 32, 63, 127, 128, 130, 130, 255, 299, 302, 304, 305, 306, 371, 433};
      ExpectSame(s, plan, launch_);
      const Result with = s.Run(plan, Memory::Where::kDevice, launch_);
      for (size_t i = 0; i < s.lengths.size(); ++i) {
        EXPECT_TRUE(SameBits(with.y.of[i], without.y.of[i])) << i;
      }
      EXPECT_TRUE(SameBits(with.state, without.state));
      EXPECT_TRUE(SameBits(with.t_sum, without.t_sum));
    }
  }
}

TEST_F(SelectiveScanCudaTest, RefusesNonsense) {
  SelectiveScanParams p;
  p.rows.num_seqs = p.rows.total_rows = p.rows.longest = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::SelectiveScan(p, launch_)));
  p.rows.total_rows = 0;
  EXPECT_TRUE(cuda::SelectiveScan(p, launch_).ok());
}

}  // namespace
}  // namespace anabranch::kernels
