// The CUDA convolution against the CPU's.
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Result {
  Sequences out;
  Floats window;
  Floats kept;  // by place
};

struct Conv {
  int64_t channels;
  int32_t width;
  DType in = DType::kFloat32, out = DType::kFloat32;
  bool bias = true, silu = true;
  int64_t pad = 0;
  std::vector<int64_t> lengths;
  Sequences u;
  Floats weights, biases, window0;
  int64_t slot_stride;
  std::vector<int32_t> keep;  // rows of a launch

  Conv(int64_t c, int32_t k, DType type, std::vector<int64_t> n, uint32_t seed)
      : channels(c), width(k), in(type), out(type), lengths(std::move(n)) {
    Random random(seed);
    u = Sequences::Make(lengths, channels, random);
    for (Floats& of : u.of) of = KeptAs(in, of);
    weights = random.Normals(channels * width);
    biases = random.Normals(channels);
    slot_stride = channels * (width - 1) + 8;
    window0 =
        KeptAs(in, random.Normals((2 * static_cast<int64_t>(lengths.size()) + 1) * slot_stride));
  }

  void Launch1(const LaunchPlan& plan, Memory::Where where, const Launch& launch,
               Result& result) const {
    Memory memory(where);
    const Packing packing(plan);
    CausalConv1dParams p;
    p.rows = memory.PutRows(packing);
    if (where == Memory::Where::kHost) p.rows = packing.rows();
    p.channels = channels, p.width = width;
    p.u_stride = channels + 2 * pad, p.out_stride = channels + pad;
    p.u = memory.PutActs(u.Gather(plan, p.u_stride), in);
    p.weight = memory.Put(weights);
    p.bias = bias ? memory.Put(biases) : nullptr;
    p.window = memory.Put(result.window), p.window_slot_stride = slot_stride;
    const auto count = static_cast<size_t>(packing.row_start.back() * p.out_stride);
    p.out = memory.PutActs(Floats(count, kPoison), out);
    p.silu = silu;
    const size_t kept = keep.size() * static_cast<size_t>(slot_stride);
    if (!keep.empty()) {
      p.checkpoints = {static_cast<int32_t>(keep.size()), memory.Put(keep),
                       memory.Put(BackwardPlaces(keep.size()))};
      p.checkpoint_window = memory.Put(Floats(kept, -77.0f));
      p.checkpoint_window_stride = slot_stride;
    }
    const absl::Status status =
        where == Memory::Where::kHost ? CausalConv1d(p, launch) : cuda::CausalConv1d(p, launch);
    ASSERT_TRUE(status.ok()) << status;
    result.window = memory.Get(p.window, result.window.size());
    result.kept = memory.Get(p.checkpoint_window, kept);
    result.out.Scatter(plan, memory.GetActs(p.out, count), p.out_stride);
  }
  Result Run(const Plan& plan, Memory::Where where, const Launch& launch) const {
    Result result{Sequences::Poisoned(lengths, channels), window0, {}};
    for (const LaunchPlan& one : plan) Launch1(one, where, launch, result);
    return result;
  }
};

// Sums are the same fused chain on both sides; silu differs by a few units (its derivative is below
// 1.1, and |silu| is at most |x|), more where the exponential is large and the result small.
void ExpectSame(const Conv& conv, const Plan& plan, const Launch& cuda) {
  const Result want = conv.Run(plan, Memory::Where::kHost, {});
  const Result got = conv.Run(plan, Memory::Where::kDevice, cuda);
  EXPECT_TRUE(SameBits(got.window, want.window)) << "windows are copies";
  EXPECT_TRUE(SameBits(got.kept, want.kept)) << "so are those of checkpoints";
  for (size_t i = 0; i < conv.lengths.size(); ++i) {
    std::vector<double> tolerance;
    for (float v : want.out.of[i]) {
      const double exact = conv.silu ? 64 * kUnit * (1 + std::abs(v)) : 0;
      tolerance.push_back(
          exact + (conv.out == DType::kBFloat16 || conv.silu ? UnitOf(conv.out) * std::abs(v) : 0));
    }
    EXPECT_TRUE(AllNear(got.out.of[i], want.out.of[i], tolerance)) << "sequence " << i;
  }
}

class CausalConv1dCudaTest : public CudaKernelTest {};

TEST_F(CausalConv1dCudaTest, MatchesTheCpuForAnySplit) {
  for (DType dtype : kBothDTypes) {
    for (int64_t channels : {1, 37, 64, 1032}) {
      for (int32_t width : {2, 3, 4, 8}) {
        for (int64_t pad : {0, 1, 8}) {
          Conv conv(channels, width, dtype, {13, 0, 2, 1, 40}, static_cast<uint32_t>(width));
          conv.pad = pad;
          SCOPED_TRACE(::testing::Message()
                       << channels << " channels, width " << width << ", padded by " << pad);
          ExpectSame(conv,
                     {{{0, 0, 1}, {1, 0, 0}, {2, 0, 2}, {4, 0, 37}},
                      {{0, 1, 13}, {3, 0, 1}},
                      {{4, 37, 38}},
                      {{4, 38, 40}}},
                     launch_);
        }
      }
    }
  }
}

TEST_F(CausalConv1dCudaTest, StepsOfOneToken) {
  for (DType dtype : kBothDTypes) {
    for (int64_t channels : {5, 2056}) {
      for (int32_t width : {4, 5}) {
        const Conv conv(channels, width, dtype, {6, 6}, 3);
        Plan steps;
        for (int64_t t = 0; t < 6; ++t) steps.push_back({{1, t, t + 1}, {0, t, t + 1}});
        ExpectSame(conv, steps, launch_);
      }
    }
  }
}

TEST_F(CausalConv1dCudaTest, LongLaunches) {
  Conv conv(72, 4, DType::kBFloat16, {5000, 3, 17}, 5);
  ExpectSame(conv, {{{1, 0, 3}, {0, 0, 5000}, {2, 0, 17}}}, launch_);
  for (DType dtype : kBothDTypes) {
    const Conv more(24, 4, dtype, {16500, 3, 1, 37}, 6);
    ExpectSame(more, {{{1, 0, 3}, {2, 0, 1}, {0, 0, 16500}, {3, 0, 37}}}, launch_);
  }
}

TEST_F(CausalConv1dCudaTest, WithoutBiasOrActivationTheBitsAreTheSame) {
  for (int64_t channels : {40, 43}) {
    Conv conv(channels, 4, DType::kFloat32, {30, 9}, 9);
    conv.silu = false;
    for (bool bias : {false, true}) {
      conv.bias = bias;
      ExpectSame(conv, {{{0, 0, 30}, {1, 0, 8}}, {{1, 8, 9}}}, launch_);
    }
  }
}

TEST_F(CausalConv1dCudaTest, InputAndOutputOfDifferentTypes) {
  Conv conv(64, 4, DType::kBFloat16, {21}, 9);
  conv.out = DType::kFloat32;
  ExpectSame(conv, EachAlone(conv.lengths), launch_);
  std::swap(conv.in, conv.out);
  ExpectSame(conv, EachAlone(conv.lengths), launch_);
}

TEST_F(CausalConv1dCudaTest, CheckpointsAreTheCpus) {
  for (int64_t channels : {40, 43}) {
    Conv conv(channels, 4, DType::kBFloat16, {30, 2, 0, 1}, 9);
    conv.keep = {0, 1, 2, 3, 17, 29, 30, 31, 32};
    ExpectSame(conv, {{{0, 0, 30}, {1, 0, 2}, {2, 0, 0}, {3, 0, 1}}}, launch_);
    Conv steps(channels, 4, DType::kFloat32, {2, 1, 0, 1}, 9);
    steps.keep = {0, 1};
    ExpectSame(steps, {{{3, 0, 1}, {0, 0, 1}}, {{0, 1, 2}, {1, 0, 1}}}, launch_);
  }
}

TEST_F(CausalConv1dCudaTest, RefusesNonsense) {
  CausalConv1dParams p;
  p.rows.num_seqs = p.rows.total_rows = p.rows.longest = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::CausalConv1d(p, launch_)));
  p.rows.total_rows = 0;
  EXPECT_TRUE(cuda::CausalConv1d(p, launch_).ok());
}

}  // namespace
}  // namespace anabranch::kernels
