// The CUDA norms against the CPU's.
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Norm {
  int64_t rows, width;
  int32_t groups = 1;
  DType in = DType::kFloat32, out = DType::kFloat32;
  bool weighted = true, in_place = false;
  int64_t pad = 0;
  std::optional<GateOrder> gate;

  Floats Run(Memory::Where where, const Launch& launch) const {
    Random random(static_cast<uint32_t>(width));
    Memory memory(where);
    const int64_t x_stride = width + pad, z_stride = width + 2 * pad;
    const int64_t y_stride = in_place ? x_stride : width + 3 * pad;
    GatedRmsNormParams g;
    RmsNormParams& p = g.norm;
    p.rows = rows, p.width = width, p.groups = groups, p.eps = 1e-5f;
    const Acts x = memory.PutActs(KeptAs(in, random.Normals(rows * x_stride)), in);
    g.z = memory.PutActs(KeptAs(in, random.Normals(rows * z_stride, 3)), in);
    p.x = x, p.x_stride = x_stride, g.z_stride = z_stride, p.y_stride = y_stride;
    p.weight = weighted ? memory.Put(random.Normals(width)) : nullptr;
    p.y = in_place ? x : memory.PutActs(Floats(static_cast<size_t>(rows * y_stride), kPoison), out);
    absl::Status status;
    if (where == Memory::Where::kHost) {
      if (gate) g.order = *gate;
      status = gate ? GatedRmsNorm(g, launch) : RmsNorm(p, launch);
    } else {
      if (gate) g.order = *gate;
      status = gate ? cuda::GatedRmsNorm(g, launch) : cuda::RmsNorm(p, launch);
    }
    EXPECT_TRUE(status.ok()) << status;
    const Floats all = memory.GetActs(p.y, static_cast<size_t>(rows * y_stride));
    Floats y;
    for (int64_t r = 0; r < rows; ++r) {
      y.insert(y.end(), all.begin() + r * y_stride, all.begin() + r * y_stride + width);
    }
    return y;
  }
};

// A sum of n squares in either order is off by at most n units of itself, its root by half of that,
// in practice far less: 32 units cover trees of both kernels, the gate adds 64.
void ExpectSame(const Norm& norm, const Launch& cuda) {
  SCOPED_TRACE(::testing::Message() << norm.rows << " x " << norm.width << ", groups "
                                    << norm.groups << ", padded by " << norm.pad);
  const Floats want = norm.Run(Memory::Where::kHost, {}),
               got = norm.Run(Memory::Where::kDevice, cuda);
  std::vector<double> tolerance;
  for (float v : want) {
    tolerance.push_back((96 * kUnit + UnitOf(norm.out)) * std::abs(v) + 1e-30);
  }
  EXPECT_TRUE(AllNear(got, want, tolerance));
}

class NormCudaTest : public CudaKernelTest {};

TEST_F(NormCudaTest, MatchesTheCpuForAnyShape) {
  for (DType in : kBothDTypes) {
    for (DType out : kBothDTypes) {
      for (int64_t width : {1, 7, 16, 160, 768, 2560, 5120, 5121, 18000}) {
        for (int64_t pad : {0, 1, 8}) {
          for (int64_t rows : {0, 1, 5}) {
            Norm norm{.rows = rows, .width = width};
            norm.in = in, norm.out = out, norm.pad = pad, norm.weighted = rows != 5;
            ExpectSame(norm, launch_);
          }
        }
      }
    }
  }
}

TEST_F(NormCudaTest, GatesInEveryOrderAndGroup) {
  for (DType dtype : kBothDTypes) {
    for (GateOrder order : {GateOrder::kGateFirst, GateOrder::kNormFirst, GateOrder::kGateOnly}) {
      for (int32_t groups : {1, 2, 8}) {
        for (int64_t width : {48, 1536, 5120}) {
          for (bool in_place : {false, true}) {
            Norm norm{.rows = 9, .width = width, .groups = groups};
            norm.in = norm.out = dtype, norm.gate = order, norm.in_place = in_place;
            norm.pad = 8;
            ExpectSame(norm, launch_);
            norm.pad = 3;
            ExpectSame(norm, launch_);
          }
        }
      }
    }
  }
}

TEST_F(NormCudaTest, ThousandsOfRows) {
  for (DType in : kBothDTypes) {
    for (int64_t width : {8, 256, 768, 2560, 5120, 10240, 10248, 20480}) {
      if (SmallShapes() && width > 2560) continue;
      for (int64_t pad : {0, 8}) {
        Norm norm{.rows = 2100, .width = width};
        norm.in = in, norm.out = DType::kBFloat16, norm.pad = pad, norm.weighted = pad == 0;
        ExpectSame(norm, launch_);
      }
    }
  }
  for (int32_t groups : {1, 8}) {
    for (GateOrder order : {GateOrder::kGateFirst, GateOrder::kNormFirst, GateOrder::kGateOnly}) {
      for (bool in_place : {false, true}) {
        Norm norm{.rows = 2051, .width = 1536, .groups = groups};
        norm.in = norm.out = DType::kBFloat16, norm.gate = order, norm.in_place = in_place;
        norm.pad = 8;
        ExpectSame(norm, launch_);
      }
    }
  }
}

// Rows that lie more than 2^31 elements apart.
TEST_F(NormCudaTest, FarApartRows) {
  constexpr int64_t kRows = 3, kWidth = 256, kStride = (int64_t{1} << 31) + 8;
  size_t free_bytes = 0, total = 0;
  if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess || free_bytes < size_t{20} << 30) {
    GTEST_SKIP() << "needs 20 GB of device memory";
  }
  Random random(1);
  Memory memory(Memory::Where::kDevice);
  const Floats x = KeptAs(DType::kBFloat16, random.Normals(kRows * kWidth));
  auto* device = static_cast<uint16_t*>(memory.Allocate(((kRows - 1) * kStride + kWidth) * 2));
  std::vector<uint16_t> bits;
  for (float v : x) bits.push_back(ToBf16(v));
  for (int64_t r = 0; r < kRows; ++r) {
    memory.Write(device + r * kStride, bits.data() + r * kWidth, kWidth * 2);
  }
  RmsNormParams p;
  p.rows = kRows, p.width = kWidth, p.eps = 1e-5f;
  p.x = ConstActs(device, DType::kBFloat16), p.x_stride = kStride;
  p.y = Acts(device, DType::kBFloat16), p.y_stride = kStride;
  ASSERT_TRUE(cuda::RmsNorm(p, launch_).ok());
  Floats want(x.size());
  p.x = x.data(), p.y = want.data(), p.x_stride = p.y_stride = kWidth;
  ASSERT_TRUE(RmsNorm(p, {}).ok());
  for (int64_t r = 0; r < kRows; ++r) {
    const Floats got = memory.GetActs(ConstActs(device + r * kStride, DType::kBFloat16), kWidth);
    for (int64_t i = 0; i < kWidth; ++i) {
      const float w = want[static_cast<size_t>(r * kWidth + i)];
      ASSERT_NEAR(got[static_cast<size_t>(i)], w,
                  (UnitOf(DType::kBFloat16) + 96 * kUnit) * std::abs(w));
    }
  }
}

TEST_F(NormCudaTest, RefusesNonsense) {
  RmsNormParams p;
  p.rows = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::RmsNorm(p, launch_)));
  GatedRmsNormParams g;
  g.norm.rows = 1;
  EXPECT_TRUE(absl::IsInvalidArgument(cuda::GatedRmsNorm(g, launch_)));
}

}  // namespace
}  // namespace anabranch::kernels
