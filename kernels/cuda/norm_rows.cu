// Norms of thousands of rows: memory is all that counts. It is busy only while enough loads are
// under way, so a thread asks for all that it needs of its row before it uses any of it, a row has
// few threads, each with up to kVectors times 16 bytes of bfloat16, and many rows share a
// multiprocessor. Floor, bytes: norm.cu's.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/norm_rows.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kVectors = 5;        // of kVector elements, of a thread at most
constexpr int kMostThreads = 256;  // of a row
constexpr int kNarrowRows = 4;     // rows of a block where one warp has a row
constexpr int64_t kMany = 2048;    // parts of rows from which this pays

// The sum over the threads of a row; all of them get it.
__device__ float RowSum(float v, bool wide) {
  v = WarpSum(v);
  if (!wide) return v;
  __shared__ float sums[kMostThreads / kWarp];
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = v;
  __syncthreads();
  v = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / kWarp; ++warp) v += sums[warp];
  return v;
}

template <class T, bool kGated>
__global__ void __launch_bounds__(kMostThreads, 2) NormRows(GatedRmsNormParams p, bool wide) {
  LetNextStart();
  WaitForInputs();
  const int64_t unit = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (unit >= p.norm.rows * p.norm.groups) return;  // whole warps; never in a wide block
  const int64_t row = unit / p.norm.groups, n = p.norm.width / p.norm.groups;
  const int64_t begin = unit % p.norm.groups * n;
  const auto place = [](int k) { return int64_t{threadIdx.x + k * blockDim.x} * kVector; };
  const T* x = static_cast<const T*>(p.norm.x.data) + row * p.norm.x_stride + begin;
  Raw<T, kVector> in[kVectors];
  Raw<Bf16, kVector> gate[kVectors];
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    if (place(k) < n) in[k].Load(x + place(k));
  }
  if constexpr (kGated) {
    const Bf16* z = static_cast<const Bf16*>(p.z.data) + row * p.z_stride + begin;
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      if (place(k) < n) gate[k].Load(z + place(k));
    }
  }
  float kept[kVectors][kVector];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    if (place(k) >= n) continue;
    in[k].WidenTo(kept[k]);
    if constexpr (kGated) {
      float z[kVector];
      gate[k].WidenTo(z);
#pragma unroll
      for (int i = 0; i < kVector; ++i) kept[k][i] *= Silu(z[i]);
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum += kept[k][i] * kept[k][i];
  }
  const float inverse = 1.0f / sqrtf(RowSum(sum, wide) / static_cast<float>(n) + p.norm.eps);
  Bf16* y = static_cast<Bf16*>(p.norm.y.data) + row * p.norm.y_stride + begin;
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    if (place(k) >= n) continue;
    float weight[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) weight[i] = 1.0f;
    if (p.norm.weight != nullptr) LoadWide<kVector>(p.norm.weight + begin + place(k), weight);
#pragma unroll
    for (int i = 0; i < kVector; ++i) kept[k][i] = weight[i] * (kept[k][i] * inverse);
    StoreNarrow<kVector>(kept[k], y + place(k));
  }
}

}  // namespace

bool TakesVectors(const GatedRmsNormParams& g) {
  const RmsNormParams& p = g.norm;
  return p.width / p.groups % kVector == 0 && TakesVectors(p.x.data, p.x_stride) &&
         TakesVectors(p.y.data, p.y_stride) && (p.weight == nullptr || IsAligned(p.weight)) &&
         (g.z.data == nullptr || TakesVectors(g.z.data, g.z_stride));
}

bool TakesManyRows(const GatedRmsNormParams& g) {
  const RmsNormParams& p = g.norm;
  const bool gated = g.z.data != nullptr;
  const bool dtypes = p.y.dtype == DType::kBFloat16 &&
                      (!gated || (g.z.dtype == DType::kBFloat16 && p.x.dtype == DType::kBFloat16 &&
                                  g.order == GateOrder::kGateFirst));
  return dtypes && p.rows * p.groups >= kMany && TakesVectors(g) &&
         p.width / p.groups <= int64_t{kMostThreads} * kVectors * kVector;
}

absl::Status NormManyRows(const GatedRmsNormParams& g, const Launch& launch, const char* name) {
  const int64_t units = g.norm.rows * g.norm.groups;
  const int64_t vectors = g.norm.width / g.norm.groups / kVector;
  const int64_t threads = CeilDiv(CeilDiv(vectors, kVectors), kWarp) * kWarp;
  const bool wide = threads > kWarp;
  const dim3 block(static_cast<unsigned>(threads), wide ? 1 : kNarrowRows);
  const dim3 grid(static_cast<unsigned>(CeilDiv(units, block.y)));
  auto* const kernel = g.z.data != nullptr                 ? NormRows<Bf16, true>
                       : g.norm.x.dtype == DType::kFloat32 ? NormRows<float, false>
                                                           : NormRows<Bf16, false>;
  return StartEarly(launch, name, kernel, grid, block, 0, g, wide);
}

}  // namespace anabranch::kernels::cuda
