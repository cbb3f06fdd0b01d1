// The CUDA matrix products against the CPU's, by every path: cuBLASLt, few rows, plain tiles.
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder
using Where = Memory::Where;

struct Product {
  int64_t m, n, k;
  DType w = DType::kFloat32, x = DType::kFloat32, y = DType::kFloat32;
  bool bias = false, accumulate = false;
  int64_t pad = 0;
};

struct Inputs {
  Floats x, w, bias, y;
};

// Gaps between rows are poisoned.
Inputs Draw(const Product& c) {
  Random random(static_cast<uint32_t>(c.m * 31 + c.n * 7 + c.k));
  Inputs in{KeptAs(c.x, random.Normals(c.m * (c.k + c.pad))),
            KeptAs(c.w, random.Normals(c.n * c.k, 0.3f)), random.Normals(c.n),
            random.Normals(c.m * (c.n + c.pad))};
  for (int64_t r = 0; r < c.m; ++r) {
    for (int64_t i = 0; i < c.pad; ++i) in.x[r * (c.k + c.pad) + c.k + i] = kPoison;
  }
  if (!c.accumulate) std::fill(in.y.begin(), in.y.end(), kPoison);
  // On the device bfloat16 weights meet x in bfloat16.
  if (c.w == DType::kBFloat16) in.x = KeptAs(DType::kBFloat16, in.x);
  return in;
}

Floats OnDevice(const Product& c, const Inputs& in, const Launch& launch) {
  Memory memory(Where::kDevice);
  GemmParams p;
  p.m = c.m;
  p.x = memory.PutActs(in.x, c.x), p.x_stride = c.k + c.pad;
  p.w = {memory.PutActs(in.w, c.w).data, c.w, c.n, c.k};
  if (c.bias) p.bias = memory.Put(in.bias);
  p.y = memory.PutActs(in.y, c.y), p.y_stride = c.n + c.pad;
  p.accumulate = c.accumulate;
  const absl::Status s = cuda::Gemm(p, launch);
  EXPECT_TRUE(s.ok()) << s;
  const Floats all = memory.GetActs(p.y, in.y.size());
  Floats y;
  for (int64_t r = 0; r < c.m; ++r) {
    const auto row = all.begin() + r * p.y_stride;
    y.insert(y.end(), row, row + c.n);
  }
  return y;
}

// In double, with what the roundings of float32 sums may add up to at most.
void ExpectRight(const Product& c, const Launch& launch) {
  SCOPED_TRACE(::testing::Message()
               << c.m << " x " << c.n << " x " << c.k << ", w " << static_cast<int>(c.w) << ", x "
               << static_cast<int>(c.x) << ", y " << static_cast<int>(c.y) << ", pad " << c.pad
               << (c.bias ? ", bias" : "") << (c.accumulate ? ", +=" : ""));
  const Inputs in = Draw(c);
  const Floats got = OnDevice(c, in, launch);
  Floats want;
  std::vector<double> tolerance;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      double sum = 0, size = 0;
      const auto add = [&](double v) { sum += v, size += std::abs(v); };
      for (int64_t l = 0; l < c.k; ++l)
        add(double{in.x[i * (c.k + c.pad) + l]} * in.w[j * c.k + l]);
      if (c.bias) add(in.bias[j]);
      if (c.accumulate) add(in.y[i * (c.n + c.pad) + j]);
      want.push_back(static_cast<float>(sum));
      // A bias is rounded to the output's dtype in places, and so are the product without it and
      // the result.
      const double bias =
          c.bias ? UnitOf(c.y) * (std::abs(in.bias[j]) + std::abs(sum - in.bias[j])) : 0;
      tolerance.push_back(size * static_cast<double>(c.k + 4) * kUnit + bias +
                          2 * UnitOf(c.y) * std::abs(sum) + 1e-30);
    }
  }
  EXPECT_TRUE(AllNear(got, want, tolerance));
}

class GemmCudaTest : public CudaKernelTest {};

TEST_F(GemmCudaTest, MultipliesEveryShapeInEveryDtype) {
  for (int64_t m : {0, 1, 2, 7, 8, 9, 16, 17, 65, 300}) {
    if (SmallShapes() && m > 17) continue;
    for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {3, 5}, {8, 32}, {24, 40}, {100, 264}, {129, 63}, {256, 512}}) {
      for (DType w : kBothDTypes) {
        for (DType x : kBothDTypes) {
          for (DType y : kBothDTypes) {
            Product c{m, n, k, w, x, y};
            ExpectRight(c, launch_);
            c.bias = true, c.pad = 3;
            ExpectRight(c, launch_);
            c.pad = 8, c.accumulate = y == DType::kFloat32;
            ExpectRight(c, launch_);
          }
        }
      }
    }
  }
}

TEST_F(GemmCudaTest, AddsUpLongRows) {
  for (int64_t m : {1, 8, 33}) {
    for (int64_t k : {2560, 5120, 5128}) {
      if (SmallShapes() && k != 5128) continue;
      for (DType w : kBothDTypes) ExpectRight({m, 80, k, w, w, w}, launch_);
    }
  }
}

TEST_F(GemmCudaTest, GivesTheSameBitsEachTime) {
  for (int64_t m : {1, 8, 200}) {
    const Product c{m, 264, 512, DType::kBFloat16, DType::kBFloat16, DType::kBFloat16};
    const Inputs in = Draw(c);
    EXPECT_TRUE(SameBits(OnDevice(c, in, launch_), OnDevice(c, in, launch_)));
  }
}

TEST_F(GemmCudaTest, AnswersNaNWithNaNInItsRowOnly) {
  const Product c{4, 16, 64, DType::kBFloat16, DType::kBFloat16, DType::kFloat32};
  Inputs in = Draw(c);
  in.x[2 * c.k + 5] = kPoison;
  const Floats got = OnDevice(c, in, launch_);
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) EXPECT_EQ(std::isnan(got[i * c.n + j]), i == 2);
  }
}

TEST_F(GemmCudaTest, RefusesNonsense) {
  GemmParams p;
  p.m = 1, p.w.n = 1, p.w.k = 1;
  EXPECT_EQ(cuda::Gemm(p, launch_).code(), absl::StatusCode::kInvalidArgument);
  Memory memory(Where::kDevice);
  p.x = memory.PutActs({1}, DType::kFloat32), p.x_stride = 1;
  p.w.data = memory.PutActs({1}, DType::kFloat32).data;
  p.y = memory.PutActs({1}, DType::kBFloat16), p.y_stride = 1, p.accumulate = true;
  EXPECT_EQ(cuda::Gemm(p, launch_).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace anabranch::kernels
