// Products of a few rows with bfloat16 weights, as in decode: every weight is read once, 2 n k
// bytes, and all else should vanish beside that.
//
// The weights' rows stand as the B operand of tensor core products of shape 16 x 8 x 16, up to 16
// rows of x as A. A sum over k does not care for its order as long as x and the weights agree on
// it, so a lane takes 8 neighbouring k of one row, one 16-byte load, for what the instruction calls
// k = 2t, 2t + 1, 2t + 8, 2t + 9 of two products: no shared memory, no shuffles. A block does 8 or
// 16 columns of y; its warps share out k and are added up at the end, in a fixed order. Four steps
// are loaded before the first is used: 16 or 32 KB of weights are on their way for each block of 8
// warps. Where there are fewer blocks than multiprocessors, what counts is how often a warp waits
// for memory, and 32 warps take all of k at once.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm_own.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kWarps = 8, kManyWarps = 32;
constexpr int kRows = 16;    // of x
constexpr int kColumns = 8;  // of y, of one product; a block does one or two beside each other
constexpr int kStep = 32;    // k of one load by a warp
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

// kTiles: products beside each other. kHigh: more than 8 rows of x.
template <class X, int kTiles, bool kHigh, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp, kWarps > 8 ? 1
                                                 : kHigh    ? 2
                                                            : 3) SkinnyKernel(GemmParams p) {
  constexpr int kWidth = kTiles * kColumns;
  __shared__ float parts[kWarps][kRows][kWidth + 1];
  LetNextStart();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, group = lane / 4, in_group = lane % 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWidth;
  const int64_t k = p.w.k;
  const auto* x = static_cast<const X*>(p.x.data);
  // Columns past the end read the last one; what they give is not stored.
  const Bf16* w[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    w[j] = static_cast<const Bf16*>(p.w.data) + min(first + j * kColumns + group, p.w.n - 1) * k;
  }
  const bool low = group < p.m, high = kHigh && group + 8 < p.m;
  const X* x_low = x + (low ? group : 0) * p.x_stride;
  const X* x_high = x + (high ? group + 8 : 0) * p.x_stride;
  const uint4 zero = make_uint4(0, 0, 0, 0);
  const int64_t begin = warp * kStep + in_group * 8;
  uint4 weights[kDeep][kTiles];
  const auto load_weights = [&](int64_t at) {
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      const int64_t here = at + i * kWarps * kStep;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) weights[i][j] = here < k ? LoadEight(w[j] + here) : zero;
    }
  };
  load_weights(begin);  // while the kernels ahead still work
  WaitForInputs();
  float c[kTiles][4] = {};
  for (int64_t at = begin; at < k + in_group * 8; at += kWarps * kStep * kDeep) {
    if (at != begin) load_weights(at);
    uint4 rows[kDeep][2];
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      const int64_t here = at + i * kWarps * kStep;
      const bool inside = here < k;
      rows[i][0] = inside && low ? LoadEight(x_low + here) : zero;
      rows[i][1] = inside && high ? LoadEight(x_high + here) : zero;
    }
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      const uint4 a = rows[i][0], b = rows[i][1];
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const uint4 v = weights[i][j];
        Mma(c[j], a.x, b.x, a.y, b.y, v.x, v.y);
        Mma(c[j], a.z, b.z, a.w, b.w, v.z, v.w);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      parts[warp][group + i / 2 * 8][j * kColumns + in_group * 2 + i % 2] = c[j][i];
    }
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x) / kWidth;
  const int64_t column = first + threadIdx.x % kWidth;
  if (row >= p.m || column >= p.w.n) return;
  float sum = p.bias == nullptr ? 0 : p.bias[column];
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += parts[i][row][threadIdx.x % kWidth];
  const int64_t to = row * p.y_stride + column;
  if (p.accumulate) sum += static_cast<const float*>(p.y.data)[to];
  const float out[1] = {sum};
  StoreActs(p.y.data, p.y.dtype, to, out);
}

template <class X, int kTiles, int kWarps>
absl::Status Run(const GemmParams& p, const Launch& launch) {
  const auto blocks = static_cast<unsigned>(CeilDiv(p.w.n, kTiles * kColumns));
  return StartEarly(
      launch, "Gemm of a few rows",
      p.m > 8 ? SkinnyKernel<X, kTiles, true, kWarps> : SkinnyKernel<X, kTiles, false, kWarps>,
      blocks, kWarps * kWarp, 0, p);
}

template <class X>
absl::Status Run(const GemmParams& p, const Launch& launch) {
  if (!TakesNarrowBlocks(p, launch)) return Run<X, 2, kWarps>(p, launch);
  const bool few =
      CeilDiv(p.w.n, kColumns) <= launch.cuda->multiprocessors() && p.w.k > kWarps * kStep * kDeep;
  return few ? Run<X, 1, kManyWarps>(p, launch) : Run<X, 1, kWarps>(p, launch);
}

}  // namespace

bool TakesNarrowBlocks(const GemmParams& p, const Launch& launch) {
  constexpr int64_t kEnough = 3;  // wide blocks a multiprocessor
  return p.w.n < 2 * kColumns * kEnough * launch.cuda->multiprocessors();
}

bool FitsSkinnyGemm(const GemmParams& p) {
  return p.w.dtype == DType::kBFloat16 && p.m <= kMaxSkinnyRows && p.w.k > 0 &&
         p.w.k % kVector == 0 && IsAligned(p.w.data) && TakesVectors(p.x.data, p.x_stride);
}

absl::Status SkinnyGemm(const GemmParams& p, const Launch& launch) {
  static_assert(kMaxSkinnyRows == kRows && kWarps * kWarp >= kRows * 2 * kColumns);
  return p.x.dtype == DType::kFloat32 ? Run<float>(p, launch) : Run<Bf16>(p, launch);
}

}  // namespace anabranch::kernels::cuda
