// Products of a few rows with bfloat16 weights, as in decode: every weight is read once, 2 n k
// bytes, and all else should vanish beside that.
//
// The weights' rows stand as the B operand of tensor core products of shape 16 x 8 x 16, up to 16
// rows of x as A. A sum over k does not care for its order as long as x and the weights agree on
// it, so a lane takes 8 neighbouring k of one row, one 16-byte load, for what the instruction calls
// k = 2t, 2t + 1, 2t + 8, 2t + 9 of two products: no shared memory, no shuffles. A block does 16
// columns of y; its 8 warps share out k and are added up at the end, in a fixed order. Four steps
// are loaded before the first is used: 32 KB of weights are on their way for each block.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm_own.h"
#include "kernels/cuda/mma.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kRows = 16;     // of x
constexpr int kColumns = 16;  // of y, two products beside each other
constexpr int kStep = 32;     // k of one load by a warp
constexpr int kDeep = 4;

// Eight elements as bfloat16.
__device__ inline uint4 LoadEight(const Bf16* from) {
  return *reinterpret_cast<const uint4*>(from);
}
__device__ inline uint4 LoadEight(const float* from) {
  float v[8];
  LoadWide(from, v);
  Pack<Bf16, 8> rounded;
#pragma unroll
  for (int i = 0; i < 8; ++i) rounded.v[i] = __float2bfloat16_rn(v[i]);
  return *reinterpret_cast<const uint4*>(&rounded);
}

template <class X>
__global__ void __launch_bounds__(kWarps* kWarp) SkinnyKernel(GemmParams p) {
  __shared__ float parts[kWarps][kRows][kColumns + 1];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, group = lane / 4, in_group = lane % 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int64_t k = p.w.k;
  const auto* x = static_cast<const X*>(p.x.data);
  // Columns past the end read the last one; what they give is not stored.
  const Bf16* w[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    w[j] = static_cast<const Bf16*>(p.w.data) + min(first + j * 8 + group, p.w.n - 1) * k;
  }
  const bool low = group < p.m, high = group + 8 < p.m;
  const X* x_low = x + (low ? group : 0) * p.x_stride;
  const X* x_high = x + (high ? group + 8 : 0) * p.x_stride;
  const uint4 zero = make_uint4(0, 0, 0, 0);
  float c[2][4] = {};
  for (int64_t at = warp * kStep + in_group * 8; at < k + in_group * 8;
       at += kWarps * kStep * kDeep) {
    uint4 weights[kDeep][2], rows[kDeep][2];
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      const int64_t here = at + i * kWarps * kStep;
      const bool inside = here < k;
#pragma unroll
      for (int j = 0; j < 2; ++j) weights[i][j] = inside ? LoadEight(w[j] + here) : zero;
      rows[i][0] = inside && low ? LoadEight(x_low + here) : zero;
      rows[i][1] = inside && high ? LoadEight(x_high + here) : zero;
    }
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      const uint4 a = rows[i][0], b = rows[i][1];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const uint4 v = weights[i][j];
        Mma(c[j], a.x, b.x, a.y, b.y, v.x, v.y);
        Mma(c[j], a.z, b.z, a.w, b.w, v.z, v.w);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < 2; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      parts[warp][group + i / 2 * 8][j * 8 + in_group * 2 + i % 2] = c[j][i];
    }
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x) / kColumns;
  const int64_t column = first + threadIdx.x % kColumns;
  if (row >= p.m || column >= p.w.n) return;
  float sum = p.bias == nullptr ? 0 : p.bias[column];
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += parts[i][row][threadIdx.x % kColumns];
  const int64_t to = row * p.y_stride + column;
  if (p.accumulate) sum += static_cast<const float*>(p.y.data)[to];
  const float out[1] = {sum};
  StoreActs(p.y.data, p.y.dtype, to, out);
}

}  // namespace

bool FitsSkinnyGemm(const GemmParams& p) {
  return p.w.dtype == DType::kBFloat16 && p.m <= kMaxSkinnyRows && p.w.k > 0 &&
         p.w.k % kVector == 0 && IsAligned(p.w.data) && TakesVectors(p.x.data, p.x_stride);
}

absl::Status SkinnyGemm(const GemmParams& p, cudaStream_t stream) {
  static_assert(kWarps * kWarp == kRows * kColumns && kMaxSkinnyRows == kRows);
  const auto blocks = static_cast<unsigned>(CeilDiv(p.w.n, kColumns));
  if (p.x.dtype == DType::kFloat32) {
    SkinnyKernel<float><<<blocks, kWarps * kWarp, 0, stream>>>(p);
  } else {
    SkinnyKernel<Bf16><<<blocks, kWarps * kWarp, 0, stream>>>(p);
  }
  return LaunchStatus("Gemm of a few rows");
}

}  // namespace anabranch::kernels::cuda
