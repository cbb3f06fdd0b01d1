// The CUDA scan against the CPU's. The tolerance comes from a third run of the CPU kernel on the
// absolute values of everything that is added up: it gives, for every output, the sum of the sizes
// of its terms, and roundings are relative to that.
#include "kernels/cuda/state_codec.h"
#include "kernels/packed_state.h"
#include "tests/kernels/cuda/ssd_inputs.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

using Shape = SsdShape;

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

struct Scan : SsdInputs {
  DType state_dtype = DType::kFloat32;
  Floats state0;
  std::vector<double> t0;
  float lo = 0, hi = std::numeric_limits<float>::infinity();
  int64_t t_stride;
  std::vector<int32_t> keep;    // rows of a launch
  std::vector<uint8_t> packed;  // Checkpoints::packed
  int64_t pad = 0;              // of the activations' strides
  bool normed = false;          // a kernel behind the scan changes y in its place

  Scan(Shape s, std::vector<int64_t> n, DType type, uint32_t seed)
      : Scan(s, std::move(n), type, Random(seed)) {}
  Scan(Shape s, std::vector<int64_t> n, DType type, Random random)
      : SsdInputs(s, std::move(n), type, random), t_stride(s.heads + 1) {
    for (float& v : dt_bias) v -= 2;
    const int64_t slots = 2 * static_cast<int64_t>(lengths.size()) + 1;
    state0 = random.Normals(slots * slot_stride);
    for (int64_t i = 0; i < slots * t_stride; ++i) t0.push_back(random.Uniform(0, 9));
  }

  void Launch1(const LaunchPlan& plan, Memory::Where where, const Launch& launch,
               Result& out) const {
    Memory memory(where);
    const Packing packing(plan);
    const int64_t ys = x.width + pad;
    const int64_t rows = packing.row_start.back();
    SsdScanParams p = ParamsOf(packing, where, memory);
    p.x_stride = x.width + pad, p.b_stride = b.width + pad, p.c_stride = c.width + pad;
    p.dt_stride = dt.width + pad;
    p.x = memory.PutActs(x.Gather(plan, p.x_stride), dtype);
    p.b = memory.PutActs(b.Gather(plan, p.b_stride), dtype);
    p.c = memory.PutActs(c.Gather(plan, p.c_stride), dtype);
    p.dt = memory.PutActs(dt.Gather(plan, p.dt_stride), dtype);
    p.dt_lo = lo, p.dt_hi = hi;
    const StateSlots slots = SlotsOf(state_dtype);
    p.state = slots.Put(out.state, memory), p.state_slot_stride = slots.stride();
    p.t_sum = memory.Put(out.t_sum), p.t_slot_stride = t_stride;
    p.y = memory.PutActs(Floats(static_cast<size_t>(rows * ys), kPoison), dtype), p.y_stride = ys;
    const size_t kept = keep.size() * static_cast<size_t>(slot_stride);
    const size_t kept_t = keep.size() * static_cast<size_t>(t_stride);
    if (!keep.empty()) {
      p.checkpoints = {static_cast<int32_t>(keep.size()), memory.Put(keep),
                       memory.Put(BackwardPlaces(keep.size()))};
      if (!packed.empty()) p.checkpoints.packed = memory.Put(packed);
      p.checkpoint_state = slots.Put(Floats(kept, -77.0f), memory);
      p.checkpoint_t = memory.Put(std::vector<double>(kept_t, -77.0));
      p.checkpoint_state_stride = slots.stride(), p.checkpoint_t_stride = t_stride;
    }
    const absl::Status status =
        where == Memory::Where::kHost ? SsdScan(p, launch) : cuda::SsdScan(p, launch);
    ASSERT_TRUE(status.ok()) << status;
    if (normed) Norm(p, rows, launch);
    out.state = slots.Get(memory, p.state, out.state.size());
    out.t_sum = memory.Get(p.t_sum, out.t_sum.size());
    out.kept = slots.Get(memory, p.checkpoint_state, kept);
    out.kept_t = memory.Get(p.checkpoint_t, kept_t);
    out.y.Scatter(plan, memory.GetActs(p.y, static_cast<size_t>(rows * ys)), ys);
  }

  void Norm(const SsdScanParams& p, int64_t rows, const Launch& launch) const {
    RmsNormParams norm;
    norm.rows = rows, norm.width = x.width;
    norm.x = norm.y = p.y, norm.x_stride = norm.y_stride = p.y_stride;
    const absl::Status status = cuda::RmsNorm(norm, launch);
    ASSERT_TRUE(status.ok()) << status;
  }

  Result Run(const Plan& plan, Memory::Where where, const Launch& launch) const {
    Result out{Sequences::Poisoned(lengths, x.width), state0, t0, {}, {}};
    for (const LaunchPlan& one : plan) Launch1(one, where, launch, out);
    return out;
  }

  Scan Sizes() const {
    Scan out = *this;
    out.x = Absolute(x), out.b = Absolute(b), out.c = Absolute(c);
    out.d = Absolute(d), out.state0 = Absolute(state0);
    return out;
  }
};

// In float32 a step rounds a few times: 8 for dt and the decay, 4 for the products; what is as old
// as t steps has been rounded t times. A sum of state_dim terms adds state_dim. With bfloat16
// operands of tensor cores the inputs of a chunk are rounded twice and S before a chunk once more.
void ExpectSame(const Scan& s, const Plan& plan, const Launch& cuda) {
  const Result want = s.Run(plan, Memory::Where::kHost, {});
  const Result size = s.Sizes().Run(plan, Memory::Where::kHost, {});
  const Result got = s.Run(plan, Memory::Where::kDevice, cuda);
  const int64_t longest = *std::max_element(s.lengths.begin(), s.lengths.end());
  const double exact = kUnit * static_cast<double>(12 * (longest + 1) + s.shape.state_dim);
  // A state that is rounded lies on the one or the other side of what both sides agree on, and y of
  // later launches with it.
  const double rough = s.dtype == DType::kBFloat16 ? 4 * UnitOf(s.dtype) : 0;
  const double later = plan.size() == 1                    ? 0
                       : s.state_dtype == DType::kBFloat16 ? 2 * kBf16Unit
                       : s.state_dtype == DType::kInt8     ? 0.1
                                                           : 0;
  for (size_t i = 0; i < s.lengths.size(); ++i) {
    std::vector<double> tolerance;
    for (size_t j = 0; j < want.y.of[i].size(); ++j) {
      tolerance.push_back((exact + rough + later) * size.y.of[i][j] +
                          UnitOf(s.dtype) * std::abs(want.y.of[i][j]));
    }
    EXPECT_TRUE(AllNear(got.y.of[i], want.y.of[i], tolerance)) << "sequence " << i;
  }
  std::vector<double> tolerance;
  for (float v : size.state) tolerance.push_back((exact + rough) * v);
  const auto launches = static_cast<double>(plan.size());
  s.SlotsOf(s.state_dtype).AddRoundings(size.state, launches, tolerance);
  // What no sequence owns keeps its bits.
  std::vector<bool> owned(want.state.size());
  for (size_t i = 0; i < s.lengths.size(); ++i) {
    const int64_t at = Packing::SlotOf(static_cast<int>(i)) * s.slot_stride;
    std::fill(owned.begin() + at, owned.begin() + at + s.slot_stride - kSlotPad, true);
  }
  for (size_t i = 0; i < owned.size(); ++i) {
    if (!owned[i]) tolerance[i] = 0;
  }
  EXPECT_TRUE(AllNear(got.state, want.state, tolerance)) << "state";
  tolerance.clear();
  for (float v : size.kept) tolerance.push_back((exact + rough) * std::abs(v));
  s.SlotsOf(s.state_dtype).AddRoundings(size.kept, launches, tolerance);
  EXPECT_TRUE(AllNear(got.kept, want.kept, tolerance)) << "checkpoints";
  for (size_t i = 0; i < want.kept_t.size(); ++i) {
    EXPECT_NEAR(got.kept_t[i], want.kept_t[i], 16 * kUnit * (1 + std::abs(want.kept_t[i]))) << i;
  }
  for (size_t i = 0; i < want.t_sum.size(); ++i) {
    EXPECT_NEAR(got.t_sum[i], want.t_sum[i], 16 * kUnit * (1 + want.t_sum[i])) << "T " << i;
  }
}

class SsdScanCudaTest : public CudaKernelTest {};

TEST_F(SsdScanCudaTest, MatchesTheCpuForAnyShape) {
  for (const Shape& shape : {Shape{12, 64, 64, 1},
                             {4, 8, 16, 2},
                             {2, 5, 128, 2},
                             {3, 7, 256, 1},
                             {2, 64, 32, 1},
                             {2, 3, 1, 1},
                             {4, 6, 33, 4},
                             {1, 1, 100, 1},
                             {2, 9, 200, 1},
                             {3, 2, 15, 3}}) {
    for (DType dtype : kBothDTypes) {
      for (int64_t pad : {0, 3, 8}) {
        Scan s(shape, {5, 0, 1, 70}, dtype, static_cast<uint32_t>(shape.state_dim));
        s.pad = pad;
        SCOPED_TRACE(::testing::Message() << shape.state_dim << " states, padded by " << pad
                                          << ", dtype " << static_cast<int>(dtype));
        ExpectSame(s, {{{0, 0, 5}, {1, 0, 0}, {2, 0, 1}, {3, 0, 70}}}, launch_);
      }
    }
  }
}

TEST_F(SsdScanCudaTest, StateIsCarriedOverLaunchesOfEveryLength) {
  for (DType dtype : kBothDTypes) {
    for (const Shape& shape : {Shape{2, 64, 128, 1}, {4, 64, 64, 2}}) {
      const Scan s(shape, {300, 1, 131}, dtype, 7);
      SCOPED_TRACE(static_cast<int>(dtype));
      ExpectSame(s,
                 {{{0, 0, 129}, {2, 0, 1}},
                  {{2, 1, 3}, {1, 0, 1}, {0, 129, 130}},
                  {{0, 130, 300}, {2, 3, 131}}},
                 launch_);
    }
  }
}

TEST_F(SsdScanCudaTest, StepsOfOneToken) {
  for (DType dtype : kBothDTypes) {
    for (int32_t state_dim : {16, 64, 100, 128, 256}) {
      for (int32_t head_dim : {64, 80, 5}) {
        const Scan s({4, head_dim, state_dim, 2}, {3, 3, 3}, dtype, 11);
        SCOPED_TRACE(::testing::Message() << state_dim << " states");
        Plan steps;
        for (int64_t t = 0; t < 3; ++t)
          steps.push_back({{1, t, t + 1}, {0, t, t + 1}, {2, t, t + 1}});
        ExpectSame(s, steps, launch_);
      }
    }
  }
}

TEST_F(SsdScanCudaTest, LongSequencesOfDifferentLengths) {
  for (DType dtype : kBothDTypes) {
    const Scan s({8, 64, 128, 2}, {257, 0, 128, 640, 33, 1, 127}, dtype, 13);
    SCOPED_TRACE(static_cast<int>(dtype));
    ExpectSame(
        s, {{{0, 0, 257}, {1, 0, 0}, {2, 0, 128}, {3, 0, 640}, {4, 0, 33}, {5, 0, 1}, {6, 0, 127}}},
        launch_);
  }
}

TEST_F(SsdScanCudaTest, ClampsSteps) {
  for (DType dtype : kBothDTypes) {
    Scan s({2, 64, 128, 1}, {200}, dtype, 3);
    s.lo = 0.03f, s.hi = 0.2f;
    ExpectSame(s, EachAlone(s.lengths), launch_);
  }
}

TEST_F(SsdScanCudaTest, SameBitsWhateverElseIsInTheLaunch) {
  for (DType dtype : kBothDTypes) {
    const Scan s({4, 64, 128, 1}, {300, 70, 5, 1}, dtype, 17);
    const Plan together = {{{2, 0, 5}, {0, 0, 300}, {1, 0, 70}, {3, 0, 1}}};
    const Result alone = s.Run(EachAlone(s.lengths), Memory::Where::kDevice, launch_);
    const Result packed = s.Run(together, Memory::Where::kDevice, launch_);
    for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(SameBits(alone.y.of[i], packed.y.of[i])) << i;
    EXPECT_TRUE(SameBits(alone.state, packed.state));
    EXPECT_TRUE(SameBits(alone.t_sum, packed.t_sum));
  }
}

TEST_F(SsdScanCudaTest, NanStaysInItsSequence) {
  for (DType dtype : kBothDTypes) {
    Scan s({2, 64, 128, 1}, {150, 150, 6}, dtype, 29);
    const Plan plan = {{{0, 0, 150}, {1, 0, 150}, {2, 0, 6}}};
    const Result clean = s.Run(plan, Memory::Where::kDevice, launch_);
    s.x.of[1][3] = s.b.of[1][2] = s.dt.of[1][1] = kPoison;
    const Result got = s.Run(plan, Memory::Where::kDevice, launch_);
    for (size_t seq : {size_t{0}, size_t{2}}) {
      EXPECT_TRUE(SameBits(got.y.of[seq], clean.y.of[seq]));
      const int64_t at = Packing::SlotOf(static_cast<int>(seq)) * s.slot_stride;
      EXPECT_TRUE(SameBits(got.state.data() + at, clean.state.data() + at,
                           static_cast<size_t>(s.slot_stride) * 4));
    }
    EXPECT_TRUE(std::isnan(got.y.of[1].back())) << "NaN must not turn into a number";
  }
}

TEST_F(SsdScanCudaTest, CheckpointsAreTheCpusAndChangeNothingElse) {
  const Plan plan = {{{0, 0, 300}, {1, 0, 5}, {3, 0, 0}, {2, 0, 1}, {4, 0, 128}}};
  for (DType dtype : kBothDTypes) {
    for (const Shape& shape : {Shape{2, 64, 128, 1}, {2, 64, 64, 2}, {2, 9, 40, 1}}) {
      Scan s(shape, {300, 5, 1, 0, 128}, dtype, 37);
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

// Chunks of a long read are done in segments, for which scratch has room, on two streams: the bits
// are those of launches that end between chunks, also for a kernel behind the scan.
TEST_F(SsdScanCudaTest, AReadOfManySegmentsIsWhatItsPartsGive) {
  if (SmallShapes()) GTEST_SKIP() << "a large shape";
  Scan s({80, 64, 128, 1}, {40'000}, DType::kBFloat16, 61);
  s.normed = true;
  const Result whole = s.Run({{{0, 0, 40'000}}}, Memory::Where::kDevice, launch_);
  const Result parts = s.Run({{{0, 0, 16'384}}, {{0, 16'384, 32'768}}, {{0, 32'768, 40'000}}},
                             Memory::Where::kDevice, launch_);
  EXPECT_TRUE(SameBits(whole.y.of[0], parts.y.of[0]));
  EXPECT_TRUE(SameBits(whole.state, parts.state));
  EXPECT_TRUE(SameBits(whole.t_sum, parts.t_sum));
}

// What the compact codec's kernel makes of a tensor that was kept as it is.
std::vector<char> Encoded(const Scan& s, const float* values, cudaStream_t stream,
                          cuda::CodeMeasure& measure) {
  const int64_t count = int64_t{s.shape.heads} * s.shape.head_dim * s.shape.state_dim;
  const auto bytes =
      static_cast<size_t>(cuda::CompactBytes(count, s.shape.head_dim, s.shape.state_dim));
  Memory memory(Memory::Where::kDevice);
  cuda::CodedTensor tensor;
  tensor.values = memory.Put(Floats(values, values + count));
  tensor.encoded = memory.Put(std::vector<char>(bytes));
  tensor.count = count;
  tensor.rows = s.shape.head_dim, tensor.cols = s.shape.state_dim;
  auto* measures = memory.Put(std::vector<cuda::CodeMeasure>(1));
  const absl::Status status = cuda::EncodeCompact({{&tensor, 1}, measures}, stream);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  measure = memory.Get(measures, 1)[0];
  return memory.Get(static_cast<const char*>(tensor.encoded), bytes);
}

TEST_F(SsdScanCudaTest, PackedCheckpointsAreWhatTheCodecMakesOfPlainOnes) {
  const Plan plan = {{{0, 0, 700}, {1, 0, 5}, {2, 0, 300}}};
  for (const int32_t heads : {3, 80}) {
    if (SmallShapes() && heads > 3) continue;
    Scan s({heads, 64, 128, 1}, {700, 5, 300}, DType::kBFloat16, 53);
    const auto at_slot = static_cast<size_t>(Packing::SlotOf(2) * s.slot_stride);
    s.state0[at_slot + 2 * 64 * 128 + 77] = 1e38f;  // too large for the codec
    s.keep = {127, 128, 200, 300, 511, 639, 702, 706, 832, 1004};
    const Result plain = s.Run(plan, Memory::Where::kDevice, launch_);
    s.packed = {1, 1, 0, 1, 1, 1, 0, 1, 1, 1};  // 702: of the sequence of five rows
    const Result packed = s.Run(plan, Memory::Where::kDevice, launch_);
    for (size_t i = 0; i < s.lengths.size(); ++i) {
      EXPECT_TRUE(SameBits(packed.y.of[i], plain.y.of[i])) << i;
    }
    EXPECT_TRUE(SameBits(packed.state, plain.state));
    EXPECT_TRUE(SameBits(packed.kept_t, plain.kept_t));
    const PackedPlaces places(heads, 64, 128);
    for (size_t i = 0; i < s.keep.size(); ++i) {
      SCOPED_TRACE(::testing::Message() << "row " << s.keep[i] << ", " << heads << " heads");
      const auto place = static_cast<int64_t>(BackwardPlaces(s.keep.size())[i]);
      const float* want = plain.kept.data() + place * s.slot_stride;
      const float* got = packed.kept.data() + place * s.slot_stride;
      if (s.packed[i] == 0) {
        EXPECT_EQ(std::memcmp(got, want, static_cast<size_t>(s.slot_stride) * 4), 0);
        continue;
      }
      cuda::CodeMeasure measure;
      const std::vector<char> bytes = Encoded(s, want, launch_.cuda->stream(), measure);
      ASSERT_EQ(static_cast<int64_t>(bytes.size()), places.bytes);
      const char* const tensor = reinterpret_cast<const char*>(got);
      const auto* heads_of = reinterpret_cast<const PackedMeasure*>(tensor + places.measures);
      double off = 0, norm = 0;
      for (int32_t h = 0; h < heads; ++h) {
        // The value decays from row 705 on.
        EXPECT_EQ(heads_of[h].refused, h == 2 ? measure.refused : 0) << h;
        off += heads_of[h].off, norm += heads_of[h].norm;
      }
      EXPECT_EQ(measure.refused, s.keep[i] == 706 ? 1 : 0);
      if (measure.refused != 0) continue;
      EXPECT_EQ(std::memcmp(tensor, bytes.data(), bytes.size()), 0);
      if (!std::isfinite(measure.norm)) continue;
      EXPECT_NEAR(off, measure.off, 1e-5 * measure.off);
      EXPECT_NEAR(norm, measure.norm, 1e-5 * measure.norm);
    }
  }
}

TEST_F(SsdScanCudaTest, PackedCheckpointsAreRefusedWhereTheyCannotBe) {
  Scan s({2, 64, 64, 1}, {200}, DType::kBFloat16, 5);
  const Packing packing({{0, 0, 200}});
  Memory memory(Memory::Where::kDevice);
  EXPECT_EQ(cuda::SsdPacksCheckpointsFrom(64, 64, s.dtype, s.state_dtype, launch_), 0);
  EXPECT_EQ(cuda::SsdPacksCheckpointsFrom(64, 128, DType::kFloat32, s.state_dtype, launch_), 0);
  EXPECT_EQ(cuda::SsdPacksCheckpointsFrom(64, 128, s.dtype, DType::kBFloat16, launch_), 0);
  EXPECT_GT(cuda::SsdPacksCheckpointsFrom(64, 128, s.dtype, s.state_dtype, launch_), 1);
  SsdScanParams p = s.ParamsOf(packing, Memory::Where::kDevice, memory);
  p.x_stride = p.y_stride = s.x.width, p.b_stride = p.c_stride = s.b.width;
  p.dt_stride = s.dt.width;
  p.x = memory.PutActs(s.x.of[0], s.dtype), p.y = memory.PutActs(s.x.of[0], s.dtype);
  p.b = memory.PutActs(s.b.of[0], s.dtype), p.c = memory.PutActs(s.c.of[0], s.dtype);
  p.dt = memory.PutActs(s.dt.of[0], s.dtype);
  p.dt_hi = 1;
  p.state = memory.PutState(s.state0, s.state_dtype);
  p.t_sum = memory.Put(s.t0), p.t_slot_stride = s.t_stride;
  p.checkpoints = {1, memory.Put(std::vector<int32_t>{127}), memory.Put(std::vector<int32_t>{0}),
                   memory.Put(std::vector<uint8_t>{1})};
  p.checkpoint_state = memory.PutState(s.state0, s.state_dtype);
  p.checkpoint_t = memory.Put(s.t0);
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::SsdScan(p, launch_))) << "64 states";
}

TEST_F(SsdScanCudaTest, StatesInBfloat16AreRoundedAsOnTheCpu) {
  for (DType dtype : kBothDTypes) {
    for (const Shape& shape :
         {Shape{4, 64, 128, 1}, {2, 64, 64, 2}, {2, 40, 256, 1}, {2, 9, 40, 1}, {2, 5, 33, 1}}) {
      SCOPED_TRACE(::testing::Message() << shape.state_dim << " states");
      Scan s(shape, {300, 5, 4, 0, 128}, dtype, 41);
      s.state_dtype = DType::kBFloat16;
      s.state0 = KeptAs(s.state_dtype, s.state0);
      ExpectSame(s,
                 {{{0, 0, 200}, {1, 0, 5}, {2, 0, 1}},
                  {{2, 1, 2}, {0, 200, 201}},
                  {{3, 0, 0}, {4, 0, 128}, {2, 2, 3}, {0, 201, 300}},
                  {{2, 3, 4}}},
                 launch_);
      s.keep = {0, 31, 127, 128, 130, 299, 304, 305, 308, 371, 436};
      ExpectSame(s, {{{0, 0, 300}, {1, 0, 5}, {3, 0, 0}, {2, 0, 4}, {4, 0, 128}}}, launch_);
      s.keep.clear();
      const Plan steps = {{{2, 0, 1}, {1, 0, 1}}, {{2, 1, 2}, {1, 1, 2}}};
      const Result once = s.Run(steps, Memory::Where::kDevice, launch_);
      EXPECT_TRUE(SameBits(once.state, s.Run(steps, Memory::Where::kDevice, launch_).state));
    }
  }
}

TEST_F(SsdScanCudaTest, StatesInInt8AreRoundedAsOnTheCpu) {
  for (DType dtype : kBothDTypes) {
    for (const Shape& shape : {Shape{4, 64, 128, 1},
                               {80, 64, 128, 1},  // a block has all columns of a head
                               {40, 64, 128, 2},
                               {2, 64, 64, 2},
                               {2, 40, 256, 1},
                               {2, 9, 48, 1},
                               {3, 5, 16, 3}}) {
      if (SmallShapes() && shape.heads > 4) continue;
      SCOPED_TRACE(::testing::Message() << shape.heads << " heads, " << shape.state_dim
                                        << " states, dtype " << static_cast<int>(dtype));
      const auto scan = [&](std::vector<int64_t> lengths) {
        Scan s(shape, std::move(lengths), dtype, 51);
        s.state_dtype = DType::kInt8;
        return s;
      };
      Scan s = scan({300, 5, 1, 0, 128});
      const LaunchPlan whole = {{0, 0, 300}, {1, 0, 5}, {3, 0, 0}, {2, 0, 1}, {4, 0, 128}};
      ExpectSame(s, {whole}, launch_);
      s.keep = {0, 31, 127, 128, 130, 299, 304, 305, 368, 433};
      ExpectSame(s, {whole}, launch_);
      Scan step = scan({1, 1});
      step.keep = {0, 1};
      ExpectSame(step, {{{1, 0, 1}, {0, 0, 1}}}, launch_);
      s = scan({100, 2});
      ExpectSame(s, {{{1, 0, 1}, {0, 0, 98}}, {{0, 98, 99}, {1, 1, 2}}, {{0, 99, 100}}}, launch_);
      const Plan steps = {{{0, 0, 1}, {1, 0, 1}}, {{0, 1, 2}, {1, 1, 2}}};
      const Result once = s.Run(steps, Memory::Where::kDevice, launch_);
      EXPECT_TRUE(SameBits(once.state, s.Run(steps, Memory::Where::kDevice, launch_).state));
    }
  }
}

// A group that cannot be held is lost as a whole, in a step and in a walk, and nothing else is.
TEST_F(SsdScanCudaTest, AnInt8GroupThatIsNotFiniteBecomesNaN) {
  for (const Shape& shape : {Shape{2, 64, 128, 1}, {2, 9, 48, 1}}) {
    Scan s(shape, {1, 100}, DType::kBFloat16, 52);
    s.state_dtype = DType::kInt8;
    const auto bad = static_cast<size_t>(Packing::SlotOf(0) * s.slot_stride + 20);
    s.state0[bad] = std::numeric_limits<float>::quiet_NaN();
    s.state0[bad + static_cast<size_t>((Packing::SlotOf(1) - Packing::SlotOf(0)) * s.slot_stride)] =
        std::numeric_limits<float>::infinity();
    const Result got = s.Run({{{0, 0, 1}, {1, 0, 100}}}, Memory::Where::kDevice, launch_);
    const auto lost =
        std::count_if(got.state.begin(), got.state.end(), [](float v) { return std::isnan(v); });
    EXPECT_EQ(lost, 2 * kInt8Group) << shape.state_dim;
  }
}

TEST_F(SsdScanCudaTest, RefusesNonsense) {
  SsdScanParams p;
  p.rows.num_seqs = p.rows.total_rows = p.rows.longest = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::SsdScan(p, launch_)));
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::SsdScan(p, {})));
  p.rows.total_rows = 0;
  EXPECT_TRUE(cuda::SsdScan(p, launch_).ok()) << "no rows, nothing to do";
}

}  // namespace
}  // namespace anabranch::kernels
