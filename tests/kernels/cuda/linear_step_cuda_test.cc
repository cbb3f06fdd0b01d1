// The CUDA kernel for a norm, a product and a convolution together against the CPU's three, over
// the shapes that it takes and those that it leaves to kernels of their own.
#include "kernels/linear_step.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder
using Where = Memory::Where;

struct Step {
  int64_t rows, n, k;
  DType x = DType::kBFloat16, y = DType::kBFloat16;
  bool gated = false, weight = true, bias = false, accumulate = false;
  GateOrder order = GateOrder::kGateFirst;
  int32_t groups = 1;
  int64_t channels = 0, conv_from = 0;
  int32_t width = 4;
  int64_t pad = 0;
};

struct Inputs {
  Floats x, z, weight, w, bias, y, taps, tap_bias, window;
};

struct Result {
  Floats y, out, window;
};

int64_t WindowOf(const Step& c) { return (c.width - 1) * c.channels + 8; }

Inputs Draw(const Step& c) {
  Random random(static_cast<uint32_t>(c.rows * 131 + c.n * 7 + c.k + c.channels));
  Inputs in;
  in.x = KeptAs(c.x, random.Normals(c.rows * (c.k + c.pad)));
  in.z = KeptAs(DType::kBFloat16, random.Normals(c.rows * (c.k + c.pad)));
  in.weight = random.Normals(c.k);
  in.w = KeptAs(DType::kBFloat16, random.Normals(c.n * c.k, 0.3f));
  in.bias = random.Normals(c.n);
  in.y = c.accumulate ? random.Normals(c.rows * (c.n + c.pad))
                      : Floats(c.rows * (c.n + c.pad), kPoison);
  in.taps = random.Normals(c.width * c.channels);
  in.tap_bias = random.Normals(c.channels);
  in.window = KeptAs(DType::kBFloat16, random.Normals((c.rows + 2) * WindowOf(c)));
  return in;
}

// Sequences of one row, whose slots are not their places in the launch.
Packing OneRowEach(int64_t rows) {
  LaunchPlan plan;
  for (int64_t i = 0; i < rows; ++i) plan.push_back({static_cast<int32_t>(i), 0, 1});
  Packing packing(plan);
  for (int64_t i = 0; i < rows; ++i) packing.slot[i] = static_cast<int32_t>((i + 1) % (rows + 2));
  return packing;
}

Result RunStep(const Step& c, const Inputs& in, Where where, const Launch& launch) {
  Memory memory(where);
  const bool host = where == Where::kHost;
  LinearStepParams p;
  RmsNormParams& norm = p.norm.norm;
  norm.rows = c.rows, norm.width = c.k, norm.groups = c.groups;
  norm.x = memory.PutActs(in.x, c.x), norm.x_stride = norm.y_stride = c.k + c.pad;
  norm.weight = c.weight ? memory.Put(in.weight) : nullptr;
  norm.eps = 1e-5f;
  norm.y = memory.PutActs(Floats(in.x.size(), kPoison), DType::kBFloat16);
  if (c.gated) p.norm.z = memory.PutActs(in.z, DType::kBFloat16), p.norm.z_stride = c.k + c.pad;
  p.norm.order = c.order;
  GemmParams& product = p.gemm;
  product.m = c.rows;
  product.x = norm.y, product.x_stride = norm.y_stride;
  if (host) {
    std::vector<char> packed(PackedBytes(DType::kFloat32, c.n, c.k));
    PackMatrix(DType::kFloat32, in.w.data(), c.n, c.k, packed.data());
    product.w = {memory.Put(packed), DType::kFloat32, c.n, c.k};
  } else {
    product.w = {memory.PutActs(in.w, DType::kBFloat16).data, DType::kBFloat16, c.n, c.k};
  }
  product.bias = c.bias ? memory.Put(in.bias) : nullptr;
  product.y = memory.PutActs(host && c.accumulate ? Floats(in.y.size(), 0) : in.y, c.y);
  product.y_stride = c.n + c.pad;
  product.accumulate = c.accumulate && !host;
  const Packing packing = OneRowEach(c.rows);
  CausalConv1dParams& conv = p.conv;
  const auto out_count = static_cast<size_t>(c.rows * (c.channels + 8));
  if (c.channels > 0) {
    conv.rows = host ? packing.rows() : memory.PutRows(packing);
    conv.channels = c.channels, conv.width = c.width;
    conv.u = product.y + c.conv_from, conv.u_stride = product.y_stride;
    conv.weight = memory.Put(in.taps), conv.bias = memory.Put(in.tap_bias);
    conv.window = memory.Put(in.window), conv.window_slot_stride = WindowOf(c);
    conv.out = memory.PutActs(Floats(out_count, kPoison), c.y), conv.out_stride = c.channels + 8;
  }
  const absl::Status s = host ? LinearStep(p, launch) : cuda::LinearStep(p, launch);
  EXPECT_TRUE(s.ok()) << s;
  Result result;
  result.y = memory.GetActs(product.y, in.y.size());
  if (host && c.accumulate) {
    for (size_t i = 0; i < in.y.size(); ++i) result.y[i] += in.y[i];
  }
  if (c.channels == 0) return result;
  result.out = memory.GetActs(conv.out, out_count);
  result.window = memory.Get(conv.window, in.window.size());
  return result;
}

// What stands where `got` may be another number than `want`: columns that the convolution takes
// need not be written, gaps are nobody's.
bool IsCompared(const Step& c, int64_t column) {
  return column < c.n && !(column >= c.conv_from && column < c.conv_from + c.channels);
}

// The device rounds what is normed to bfloat16, and outputs; the host rounds nothing. A sum of k
// products of such inputs is off by a normal error of each.
double ToleranceOf(const Step& c) {
  const double normed = c.weight ? 3 : 1.5;  // of a typical element, at most
  return 6 * kBf16Unit * 0.3 * normed * std::sqrt(static_cast<double>(c.k)) + 1e-3;
}

void ExpectSame(const Step& c, const Launch& launch) {
  SCOPED_TRACE(::testing::Message()
               << c.rows << " x " << c.n << " x " << c.k << ", x " << static_cast<int>(c.x)
               << (c.gated ? ", gate " : "") << static_cast<int>(c.order) << ", groups " << c.groups
               << ", channels " << c.channels << " from " << c.conv_from << ", width " << c.width
               << ", pad " << c.pad << (c.accumulate ? ", +=" : ""));
  const Inputs in = Draw(c);
  const Result want = RunStep(c, in, Where::kHost, {}),
               got = RunStep(c, in, Where::kDevice, launch);
  const double off = ToleranceOf(c);
  const auto tolerance = [&](float value) { return off + 2 * UnitOf(c.y) * std::abs(value); };
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t i = 0; i < c.n; ++i) {
      const int64_t at = r * (c.n + c.pad) + i;
      if (IsCompared(c, i))
        ASSERT_NEAR(got.y[at], want.y[at], tolerance(want.y[at])) << r << ' ' << i;
    }
    for (int64_t i = 0; i < c.channels; ++i) {
      const int64_t at = r * (c.channels + 8) + i;
      // Its newest input, times a weight of 4 at most, is off by as much.
      ASSERT_NEAR(got.out[at], want.out[at], 4 * 1.1 * tolerance(6)) << r << ' ' << i;
    }
  }
  const std::vector<double> off_window(want.window.size(), tolerance(6));
  EXPECT_TRUE(AllNear(got.window, want.window, off_window));
  // What was in a window is moved and not changed.
  for (int64_t r = 0; r < c.rows && c.channels > 0; ++r) {
    const int64_t slot = (r + 1) % (c.rows + 2) * WindowOf(c);
    for (int64_t i = 0; i < (c.width - 2) * c.channels; ++i) {
      ASSERT_EQ(got.window[slot + i], in.window[slot + c.channels + i]) << r << ' ' << i;
    }
  }
}

class LinearStepCudaTest : public CudaKernelTest {};

TEST_F(LinearStepCudaTest, NormsAndMultipliesRowsOfResidualsAndOfGatedValues) {
  for (int64_t rows : {1, 2, 3, 4, 5, 8, 9, 17}) {
    for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{1, 8},
                                                                       {9, 40},
                                                                       {24, 512},
                                                                       {100, 264},
                                                                       {256, 1024},
                                                                       {40, 2560},
                                                                       {16, 5120},
                                                                       {7, 33}}) {
      if (SmallShapes() && (rows > 5 || k > 600)) continue;
      for (DType x : kBothDTypes) {
        Step c{rows, n, k, x};
        ExpectSame(c, launch_);
        c.bias = true, c.weight = false, c.pad = 8;
        ExpectSame(c, launch_);
        c.y = DType::kFloat32, c.accumulate = true, c.weight = true, c.bias = false, c.pad = 3;
        ExpectSame(c, launch_);
      }
      for (GateOrder order : {GateOrder::kGateFirst, GateOrder::kNormFirst, GateOrder::kGateOnly}) {
        Step c{rows, n, k};
        c.gated = true, c.order = order, c.y = DType::kFloat32, c.accumulate = true;
        ExpectSame(c, launch_);
        c.pad = 8, c.groups = k % 16 == 0 ? 2 : 1;
        ExpectSame(c, launch_);
      }
    }
  }
}

TEST_F(LinearStepCudaTest, ConvolvesOutputsInTheirPlaces) {
  for (int64_t rows : {1, 2, 4, 5, 11}) {
    for (DType y : kBothDTypes) {
      Step c{rows, 200, 512, DType::kFloat32, y};
      c.channels = 96, c.conv_from = 64;
      ExpectSame(c, launch_);
      c.conv_from = 0, c.pad = 8, c.bias = true;
      ExpectSame(c, launch_);
      c.channels = 200, c.x = DType::kBFloat16;
      ExpectSame(c, launch_);
      c.channels = 13, c.conv_from = 9, c.width = 3;
      ExpectSame(c, launch_);
      c.channels = 13, c.conv_from = 9, c.width = 4, c.pad = 0;
      ExpectSame(c, launch_);
    }
  }
}

TEST_F(LinearStepCudaTest, ANormThatIsNotANumberStaysInItsRow) {
  const Step c{3, 24, 64};
  Inputs in = Draw(c);
  in.x[c.k + 5] = kPoison;
  const Floats got = RunStep(c, in, Where::kDevice, launch_).y;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.n; ++j) EXPECT_EQ(std::isnan(got[i * c.n + j]), i == 1) << i;
  }
}

TEST_F(LinearStepCudaTest, GivesTheSameBitsEachTime) {
  Step c{3, 264, 2560, DType::kFloat32};
  c.channels = 128, c.conv_from = 40;
  const Inputs in = Draw(c);
  const Result a = RunStep(c, in, Where::kDevice, launch_),
               b = RunStep(c, in, Where::kDevice, launch_);
  EXPECT_TRUE(SameBits(a.out, b.out));
  EXPECT_TRUE(SameBits(a.window, b.window));
}

TEST_F(LinearStepCudaTest, RefusesNonsense) {
  LinearStepParams p;
  p.norm.norm.rows = p.gemm.m = p.gemm.w.n = p.gemm.w.k = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::LinearStep(p, launch_)));
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::LinearStep(p, {})));
}

}  // namespace
}  // namespace anabranch::kernels
