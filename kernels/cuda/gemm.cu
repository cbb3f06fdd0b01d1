// Which product runs where. float32 weights: cuBLASLt without TF32. bfloat16 weights: the own
// kernel for a few rows, which only has to keep the memory busy; cuBLASLt for more, a float32 x
// rounded to bfloat16 before. What cuBLASLt does not take (odd strides or addresses, float32
// weights into bfloat16) goes through plain tiles.
#include <algorithm>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm_own.h"
#include "kernels/cuda/gemm_plans.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

// Up to so many rows SkinnyGemm is used where it fits; 0 turns it off.
constexpr int64_t kSkinnyRows = 8;
static_assert(kSkinnyRows <= kMaxSkinnyRows);

constexpr int kTile = 64;      // rows and columns of y of one block
constexpr int kTileK = 16;     // k at a time
constexpr int kThreads = 256;  // 4 x 4 elements each

// A [kTile, kTileK] part of a row-major matrix into shared memory, zeros outside.
__device__ inline void LoadTile(const void* data, DType dtype, int64_t stride, int64_t rows,
                                int64_t k, int64_t row, int64_t at,
                                float (&to)[kTileK][kTile + 1]) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kTileK; i += kThreads) {
    const int r = i / kTileK, c = i % kTileK;
    float v[1] = {0};
    if (row + r < rows && at + c < k) LoadActs(data, dtype, (row + r) * stride + at + c, v);
    to[c][r] = v[0];
  }
}

__global__ void __launch_bounds__(kThreads) TileKernel(GemmParams p) {
  __shared__ float x[kTileK][kTile + 1], w[kTileK][kTile + 1];
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kTile;
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
  float sum[4][4] = {};
  for (int64_t at = 0; at < p.w.k; at += kTileK) {
    LoadTile(p.x.data, p.x.dtype, p.x_stride, p.m, p.w.k, row, at, x);
    LoadTile(p.w.data, p.w.dtype, p.w.k, p.w.n, p.w.k, column, at, w);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kTileK; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          sum[r][c] = fmaf(x[i][ty + 16 * r], w[i][tx + 16 * c], sum[r][c]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int64_t i = row + ty + 16 * r, j = column + tx + 16 * c;
      if (i >= p.m || j >= p.w.n) continue;
      float v[1] = {sum[r][c] + (p.bias == nullptr ? 0 : p.bias[j])};
      if (p.accumulate) v[0] += static_cast<const float*>(p.y.data)[i * p.y_stride + j];
      StoreActs(p.y.data, p.y.dtype, i * p.y_stride + j, v);
    }
  }
}

__global__ void RoundBias(const float* bias, int64_t n, Bf16* to) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) to[i] = __float2bfloat16_rn(bias[i]);
}

absl::Status Check(const GemmParams& p) {
  if (p.m < 0 || p.w.n < 0 || p.w.k < 0) return Require(false, "Gemm", "negative size");
  if (p.m == 0 || p.w.n == 0) return absl::OkStatus();
  if (p.accumulate && p.y.dtype != DType::kFloat32) {
    return Require(false, "Gemm", "accumulates only into float32");
  }
  return Require(p.y.data != nullptr && p.y_stride >= p.w.n && p.x_stride >= p.w.k &&
                     (p.w.k == 0 || (p.x.data != nullptr && p.w.data != nullptr)),
                 "Gemm", "missing input or output, or a stride below the width");
}

// As cuBLASLt wants it: x in the weights' dtype and the bias in y's, copies of them in scratch
// where they are not.
absl::StatusOr<LtProduct> Prepare(const GemmParams& p, const Launch& launch) {
  const bool convert_x = p.x.dtype != p.w.dtype;
  const bool convert_bias = p.bias != nullptr && p.y.dtype == DType::kBFloat16;
  const int64_t stride = CeilDiv(p.w.k, kVector) * kVector;
  const int64_t x_bytes =
      convert_x ? CeilDiv(p.m * stride * ElementBytes(p.w.dtype), 256) * 256 : 0;
  LtProduct product = {p.m,      p.w.n,    p.w.k,      p.w.dtype,  p.y.dtype, p.x.data,
                       p.w.data, p.y.data, p.x_stride, p.y_stride, p.bias,    p.accumulate};
  if (!convert_x && !convert_bias) return product;
  const absl::StatusOr<void*> scratch =
      launch.cuda->Scratch(static_cast<size_t>(x_bytes + (convert_bias ? 2 * p.w.n : 0)));
  if (!scratch.ok()) return scratch.status();
  if (convert_x) {
    CopyRowsParams copy;
    copy.rows = p.m;
    copy.width = p.w.k;
    copy.x = p.x;
    copy.x_stride = p.x_stride;
    copy.y = {*scratch, p.w.dtype};
    copy.y_stride = stride;
    if (absl::Status s = cuda::CopyRows(copy, launch); !s.ok()) return s;
    product.x = *scratch;
    product.x_stride = stride;
  }
  if (convert_bias) {
    auto* bias = reinterpret_cast<Bf16*>(static_cast<char*>(*scratch) + x_bytes);
    StartOn(launch.cuda->stream(), RoundBias, static_cast<unsigned>(CeilDiv(p.w.n, kThreads)),
            kThreads, 0, p.bias, p.w.n, bias);
    product.bias = bias;
  }
  return product;
}

}  // namespace

absl::Status TileGemm(const GemmParams& p, cudaStream_t stream) {
  // Rows beyond what a grid takes go in further launches.
  constexpr int64_t kMost = int64_t{65535} * kTile;
  for (int64_t row = 0; row < p.m; row += kMost) {
    GemmParams part = p;
    part.m = std::min(p.m - row, kMost);
    part.x = p.x + row * p.x_stride;
    part.y = p.y + row * p.y_stride;
    const dim3 grid(static_cast<unsigned>(CeilDiv(p.w.n, kTile)),
                    static_cast<unsigned>(CeilDiv(part.m, kTile)));
    StartOn(stream, TileKernel, grid, kThreads, 0, part);
  }
  return LaunchStatus("Gemm in tiles");
}

absl::Status Gemm(const GemmParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "Gemm"); !s.ok()) return s;
  if (absl::Status s = Check(p); !s.ok()) return s;
  if (p.m == 0 || p.w.n == 0) return absl::OkStatus();
  const cudaStream_t stream = launch.cuda->stream();
  if (p.m <= kSkinnyRows && FitsSkinnyGemm(p)) return SkinnyGemm(p, launch);
  const bool library = p.w.k > 0 && (p.w.dtype == DType::kBFloat16 || p.y.dtype == p.w.dtype);
  if (!library) return TileGemm(p, stream);
  const absl::StatusOr<LtProduct> product = Prepare(p, launch);
  if (!product.ok()) return product.status();
  const absl::StatusOr<bool> done = launch.cuda->gemm_plans().Multiply(*product, *launch.cuda);
  if (!done.ok()) return done.status();
  return *done ? LaunchStatus("Gemm") : TileGemm(p, stream);
}

}  // namespace anabranch::kernels::cuda
