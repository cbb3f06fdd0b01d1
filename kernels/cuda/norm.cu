// RMS norms on the device. A warp (narrow rows) or a block takes one group of one row, in one pass:
// what a thread loads stays in its registers between the sum of squares and the scaling. Thousands
// of rows go to norm_rows.cu.
// Floor, bytes per row: width * (in + out), with a gate width * (2 in + out), once.
#include <algorithm>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/norm_rows.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/start.h"
#include "kernels/norm.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kKept = 2;             // vectors of kVector elements a thread keeps in registers
constexpr int kOneRowThreads = 512;  // up to here one vector a thread, beyond two
constexpr int kNarrowRows = 4;       // rows of a block of one warp each

// Sum over the threads of a row: its warp, or the whole block if `wide`. All of them get it.
__device__ float RowSum(float v, bool wide) {
  v = WarpSum(v);
  if (!wide) return v;
  __shared__ float sums[kMaxThreads / kWarp];
  const int warps = blockDim.x / kWarp, lane = threadIdx.x % kWarp;
  if (lane == 0) sums[threadIdx.x / kWarp] = v;
  __syncthreads();
  return WarpSum(lane < warps ? sums[lane] : 0.0f);
}

// kCount elements of x at `at` of the row, times silu(z) if the gate comes first.
template <int kCount>
__device__ void LoadInput(const GatedRmsNormParams& p, bool gate, int64_t row, int64_t at,
                          float (&x)[kCount]) {
  LoadActs<kCount>(p.norm.x.data, p.norm.x.dtype, row * p.norm.x_stride + at, x);
  if (!gate) return;
  float z[kCount];
  LoadActs<kCount>(p.z.data, p.z.dtype, row * p.z_stride + at, z);
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] *= Silu(z[i]);
}

template <int kCount>
__device__ void StoreOutput(const GatedRmsNormParams& p, bool gate, int64_t row, int64_t at,
                            float inverse, float (&x)[kCount]) {
  float weight[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) weight[i] = 1.0f;
  if (p.norm.weight != nullptr) LoadWide<kCount>(p.norm.weight + at, weight);
#pragma unroll
  for (int i = 0; i < kCount; ++i) x[i] = weight[i] * (x[i] * inverse);
  if (gate) {
    float z[kCount];
    LoadActs<kCount>(p.z.data, p.z.dtype, row * p.z_stride + at, z);
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] *= Silu(z[i]);
  }
  StoreActs<kCount>(p.norm.y.data, p.norm.y.dtype, row * p.norm.y_stride + at, x);
}

// A null z means no gate. kCount elements at a time; kCount * kKept * (threads of a row) must cover
// a group, or, with kCount 1, rows are read twice instead.
template <int kCount>
__global__ void __launch_bounds__(kMaxThreads) Norm(GatedRmsNormParams p, bool wide) {
  LetNextStart();
  WaitForInputs();
  const int64_t unit = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (unit >= p.norm.rows * p.norm.groups) return;  // whole warps; never in a wide block
  const int64_t row = unit / p.norm.groups, n = p.norm.width / p.norm.groups;
  const int64_t begin = unit % p.norm.groups * n, step = int64_t{blockDim.x} * kCount;
  const bool gated = p.z.data != nullptr;
  const bool before = gated && p.order != GateOrder::kNormFirst;
  const bool after = gated && p.order == GateOrder::kNormFirst;
  const bool norm = !gated || p.order != GateOrder::kGateOnly;
  float kept[kKept][kCount];
  float sum = 0;
  const int64_t first = threadIdx.x * kCount;
  if constexpr (kCount > 1) {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      if (first + k * step >= n) continue;
      LoadInput<kCount>(p, before, row, begin + first + k * step, kept[k]);
#pragma unroll
      for (int i = 0; i < kCount; ++i) sum += kept[k][i] * kept[k][i];
    }
  } else if (norm) {
    for (int64_t at = first; at < n; at += step) {
      LoadInput<kCount>(p, before, row, begin + at, kept[0]);
      sum += kept[0][0] * kept[0][0];
    }
  }
  float inverse = 1.0f;
  if (norm) {
    inverse = 1.0f / sqrtf(RowSum(sum, wide) / static_cast<float>(n) + p.norm.eps);
  } else {
    p.norm.weight = nullptr;
  }
  if constexpr (kCount > 1) {
#pragma unroll
    for (int k = 0; k < kKept; ++k) {
      if (first + k * step >= n) continue;
      StoreOutput<kCount>(p, after, row, begin + first + k * step, inverse, kept[k]);
    }
  } else {
    for (int64_t at = first; at < n; at += step) {
      LoadInput<kCount>(p, before, row, begin + at, kept[0]);
      StoreOutput<kCount>(p, after, row, begin + at, inverse, kept[0]);
    }
  }
}

absl::Status Check(const GatedRmsNormParams& g, bool gated, const Launch& launch,
                   const char* name) {
  const RmsNormParams& p = g.norm;
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, name); !s.ok()) return s;
  const bool ok = p.rows >= 0 && p.width > 0 && p.groups > 0 && p.width % p.groups == 0 &&
                  p.x_stride >= p.width && p.y_stride >= p.width && p.x.data != nullptr &&
                  p.y.data != nullptr;
  if (!ok) return Require(false, name, "bad size, group count, array or stride");
  return Require(!gated || (g.z.data != nullptr && g.z_stride >= p.width), name,
                 "missing gate or short stride");
}

absl::Status Run(const GatedRmsNormParams& g, const Launch& launch, const char* name) {
  if (TakesManyRows(g)) return NormManyRows(g, launch, name);
  const RmsNormParams& p = g.norm;
  const int64_t n = p.width / p.groups, units = p.rows * p.groups;
  const bool vectors = TakesVectors(g) && n <= int64_t{kMaxThreads} * kKept * kVector;
  int64_t threads = vectors ? n / kVector : n;
  if (threads <= kWarp) {
    const dim3 block(kWarp, kNarrowRows);
    const dim3 grid(static_cast<unsigned>(CeilDiv(units, kNarrowRows)));
    return StartEarly(launch, name, vectors ? Norm<kVector> : Norm<1>, grid, block, 0, g, false);
  }
  if (vectors && threads > kOneRowThreads) threads = CeilDiv(threads, kKept);
  threads = std::min<int64_t>(kMaxThreads, CeilDiv(threads, kWarp) * kWarp);
  return StartEarly(launch, name, vectors ? Norm<kVector> : Norm<1>,
                    dim3(static_cast<unsigned>(units)), dim3(static_cast<unsigned>(threads)), 0, g,
                    true);
}

}  // namespace

absl::Status RmsNorm(const RmsNormParams& p, const Launch& launch) {
  if (p.rows == 0) return absl::OkStatus();
  GatedRmsNormParams gated;
  gated.norm = p;
  if (absl::Status s = Check(gated, false, launch, "RmsNorm"); !s.ok()) return s;
  return Run(gated, launch, "RmsNorm");
}

absl::Status GatedRmsNorm(const GatedRmsNormParams& p, const Launch& launch) {
  if (p.norm.rows == 0) return absl::OkStatus();
  if (absl::Status s = Check(p, true, launch, "GatedRmsNorm"); !s.ok()) return s;
  return Run(p, launch, "GatedRmsNorm");
}

}  // namespace anabranch::kernels::cuda
