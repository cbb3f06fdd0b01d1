// The linear layers of a decode step with a norm before and a convolution behind, in one kernel: at
// one sequence the three take about as long to start as the weights to be read.
//
// The product is gemm_skinny.cu's, and its first weights are on their way before the inputs are
// there. Then each block norms all rows for itself, into shared memory, which costs it one wait for
// the L2 cache; what the norm divides by is known when the sums of all threads are, so it
// multiplies the sums of the product instead of every input. A convolution needs one output of its
// own channel, so the thread that has it goes on with it.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/gemm_own.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/start.h"
#include "kernels/linear_step.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kRows = 8;  // of x, at most
// Of x, in all: with more the norm in each block takes longer than a kernel of its own.
constexpr int64_t kMostElements = 6144;
constexpr int kColumns = 8;  // of y, of one product; a block does one or two beside each other
constexpr int kStep = 32;    // k of one load by a warp
constexpr int kDeep = 4;
constexpr int kTaps = 4;
constexpr int kApart = 8;  // elements between rows in shared memory

// Rows of x, normed but for the division, into `rows`; of each warp the squares of what it has had.
template <class X, bool kGated>
__device__ void StageRows(const GatedRmsNormParams& p, Bf16* rows,
                          float (&squares)[kWarps][kRows]) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t k = p.norm.width;
  const bool norms = !kGated || p.order != GateOrder::kGateOnly;
  const bool weighted = norms && p.norm.weight != nullptr;
  for (int row = 0; row < static_cast<int>(p.norm.rows); ++row) {
    const X* x = static_cast<const X*>(p.norm.x.data) + row * p.norm.x_stride;
    float sum = 0;
#pragma unroll 2
    for (int64_t at = threadIdx.x * kVector; at < k; at += kThreads * kVector) {
      float v[kVector], weight[kVector], gate[kVector];
      LoadWide(x + at, v);
#pragma unroll
      for (int i = 0; i < kVector; ++i) weight[i] = gate[i] = 1;
      if (weighted) LoadWide(p.norm.weight + at, weight);
      if constexpr (kGated) {
        LoadWide(static_cast<const Bf16*>(p.z.data) + row * p.z_stride + at, gate);
#pragma unroll
        for (int i = 0; i < kVector; ++i) gate[i] = Silu(gate[i]);
      }
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        if (kGated && p.order != GateOrder::kNormFirst) v[i] *= gate[i];
        sum += v[i] * v[i];
        if (kGated && p.order == GateOrder::kNormFirst) v[i] *= gate[i];
        v[i] *= weight[i];
      }
      StoreNarrow(v, rows + row * (k + kApart) + at);
    }
    sum = WarpSum(sum);
    if (threadIdx.x % kWarp == 0) squares[warp][row] = sum;
  }
}

// The convolution of one channel of one sequence.
struct Channel {
  float window[kTaps - 1], weight[kTaps], bias;
  float* kept;

  __device__ Channel(const CausalConv1dParams& p, int32_t row, int64_t channel) {
    kept = p.window + p.rows.slot[row] * p.window_slot_stride + channel;
#pragma unroll
    for (int j = 0; j < kTaps; ++j) weight[j] = p.weight[j * p.channels + channel];
#pragma unroll
    for (int j = 0; j + 1 < kTaps; ++j) window[j] = kept[j * p.channels];
    bias = p.bias == nullptr ? 0.0f : p.bias[channel];
  }
  __device__ float Push(const CausalConv1dParams& p, float u) {
    float out = bias;
#pragma unroll
    for (int j = 0; j + 1 < kTaps; ++j) {
      out = fmaf(weight[j], window[j], out);
      kept[j * p.channels] = j + 2 < kTaps ? window[j + 1] : u;
    }
    out = fmaf(weight[kTaps - 1], u, out);
    return p.silu ? Silu(out) : out;
  }
};

// kTiles: products beside each other. The convolution's channels begin at column `conv_from`.
template <class X, bool kGated, int kTiles>
__global__ void __launch_bounds__(kThreads, 3)
    LinearStepKernel(LinearStepParams p, int64_t conv_from) {
  constexpr int kWidth = kTiles * kColumns;
  __shared__ float parts[kWarps][kRows][kWidth + 1];
  __shared__ float squares[kWarps][kRows];
  auto* const rows = static_cast<Bf16*>(DynamicShared());
  LetNextStart();
  const GemmParams& product = p.gemm;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, group = lane / 4, in_group = lane % 4;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWidth;
  const int64_t k = product.w.k;
  // Columns past the end read the last one; what they give is not stored.
  const Bf16* w[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    w[j] = static_cast<const Bf16*>(product.w.data) +
           min(first + j * kColumns + group, product.w.n - 1) * k;
  }
  const uint4 zero = make_uint4(0, 0, 0, 0);
  const int64_t begin = warp * kStep + in_group * 8;
  uint4 weights[kDeep][kTiles];
  const auto load_weights = [&](int64_t at) {
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      const int64_t here = at + i * kWarps * kStep;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        weights[i][j] = here < k ? *reinterpret_cast<const uint4*>(w[j] + here) : zero;
      }
    }
  };
  load_weights(begin);  // while the kernels ahead still work
  WaitForInputs();
  StageRows<X, kGated>(p.norm, rows, squares);
  __syncthreads();
  const bool live = group < product.m;
  const Bf16* const x = rows + (live ? group : 0) * (k + kApart);
  float c[kTiles][4] = {};
  for (int64_t at = begin; at < k + in_group * 8; at += kWarps * kStep * kDeep) {
    if (at != begin) load_weights(at);
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      const int64_t here = at + i * kWarps * kStep;
      const uint4 a = live && here < k ? *reinterpret_cast<const uint4*>(x + here) : zero;
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        const uint4 v = weights[i][j];
        Mma(c[j], a.x, 0, a.y, 0, v.x, v.y);
        Mma(c[j], a.z, 0, a.w, 0, v.z, v.w);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      parts[warp][group][j * kColumns + in_group * 2 + i] = c[j][i];
    }
  }
  const int row = static_cast<int>(threadIdx.x) / kWidth;
  const int64_t column = first + threadIdx.x % kWidth;
  const bool mine = row < product.m && column < product.w.n;
  const int64_t channel = column - conv_from;
  const bool convolved = mine && channel >= 0 && channel < p.conv.channels;
  __syncthreads();
  if (!mine) return;
  float sum = 0, square = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
    sum += parts[i][row][threadIdx.x % kWidth];
    square += squares[i][row];
  }
  if (!kGated || p.norm.order != GateOrder::kGateOnly) {
    sum *= 1.0f / sqrtf(square / static_cast<float>(k) + p.norm.norm.eps);
  }
  if (product.bias != nullptr) sum += product.bias[column];
  if (convolved) {
    const float u = product.y.dtype == DType::kBFloat16 ? Widen(__float2bfloat16_rn(sum)) : sum;
    const float out[1] = {Channel(p.conv, row, channel).Push(p.conv, u)};
    StoreActs(p.conv.out.data, p.conv.out.dtype, row * p.conv.out_stride + channel, out);
    return;
  }
  const int64_t to = row * product.y_stride + column;
  if (product.accumulate) sum += static_cast<const float*>(product.y.data)[to];
  const float out[1] = {sum};
  StoreActs(product.y.data, product.y.dtype, to, out);
}

size_t SharedBytes(const GemmParams& p) {
  return static_cast<size_t>(p.m * (p.w.k + kApart)) * sizeof(Bf16);
}

bool TakesNorm(const GatedRmsNormParams& p, const GemmParams& product) {
  const bool gated = p.z.data != nullptr;
  const bool dtypes = !gated || (p.norm.x.dtype == DType::kBFloat16 && p.z.dtype == p.norm.x.dtype);
  return dtypes && p.norm.rows == product.m && p.norm.width == product.w.k && p.norm.groups == 1 &&
         TakesVectors(p.norm.x.data, p.norm.x_stride) &&
         (p.norm.weight == nullptr || IsAligned(p.norm.weight)) &&
         (!gated || TakesVectors(p.z.data, p.z_stride));
}

// The column at which the convolution's channels begin; -1: they are no columns of y.
int64_t FirstChannel(const CausalConv1dParams& p, const GemmParams& product) {
  const auto bytes = static_cast<const char*>(p.u.data) - static_cast<const char*>(product.y.data);
  const int64_t column = bytes / static_cast<int64_t>(ElementBytes(product.y.dtype));
  const bool inside = p.u.dtype == product.y.dtype && p.u_stride == product.y_stride &&
                      column >= 0 && column + p.channels <= product.w.n;
  return inside ? column : -1;
}

bool TakesConvolution(const CausalConv1dParams& p, const GemmParams& product) {
  if (p.channels == 0) return true;
  return p.width == kTaps && p.checkpoints.count == 0 && p.rows.longest == 1 &&
         p.rows.total_rows == p.rows.num_seqs && p.rows.num_seqs == product.m &&
         !product.accumulate && FirstChannel(p, product) >= 0;
}

bool Fits(const LinearStepParams& p) {
  const GemmParams& product = p.gemm;
  return product.w.dtype == DType::kBFloat16 && product.m <= kRows &&
         product.m * product.w.k <= kMostElements && product.w.k > 0 &&
         product.w.k % kVector == 0 && IsAligned(product.w.data) && TakesNorm(p.norm, product) &&
         TakesConvolution(p.conv, product);
}

template <class X, bool kGated>
absl::Status Run(const LinearStepParams& p, const Launch& launch) {
  const bool narrow = TakesNarrowBlocks(p.gemm, launch);
  const int64_t width = narrow ? kColumns : 2 * kColumns;
  const int64_t conv_from = p.conv.channels == 0 ? 0 : FirstChannel(p.conv, p.gemm);
  return StartEarly(launch, "LinearStep",
                    narrow ? LinearStepKernel<X, kGated, 1> : LinearStepKernel<X, kGated, 2>,
                    dim3(static_cast<unsigned>(CeilDiv(p.gemm.w.n, width))), dim3(kThreads),
                    SharedBytes(p.gemm), p, conv_from);
}

}  // namespace

absl::Status LinearStep(const LinearStepParams& p, const Launch& launch) {
  static_assert(kRows * 2 * kColumns <= kThreads);
  const bool gated = p.norm.z.data != nullptr;
  if (p.gemm.m > 0 && p.gemm.w.n > 0 && Fits(p)) {
    if (gated) return Run<Bf16, true>(p, launch);
    return p.norm.norm.x.dtype == DType::kFloat32 ? Run<float, false>(p, launch)
                                                  : Run<Bf16, false>(p, launch);
  }
  absl::Status s = gated ? cuda::GatedRmsNorm(p.norm, launch) : cuda::RmsNorm(p.norm.norm, launch);
  if (s.ok()) s = cuda::Gemm(p.gemm, launch);
  if (s.ok() && p.conv.channels > 0) s = cuda::CausalConv1d(p.conv, launch);
  return s;
}

}  // namespace anabranch::kernels::cuda
