// Experts' feed-forwards: choices are grouped by expert on the device, two products over all groups
// (moe_gemm.cu), and a row's results added up in ascending order of its experts.
//
// Where a choice stands inside its group may differ from run to run; no result depends on it.
#include <algorithm>
#include <limits>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/moe_gemm.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int64_t kOneBlock = 4096;  // choices that one block groups

struct Grouping {
  int64_t choices = 0;
  int32_t experts = 0;
  int64_t tile_rows = 0;
  const int32_t* expert = nullptr;  // [choices]
  int32_t* slot = nullptr;          // [choices]: where a choice stands in the grouped order
  int32_t* end = nullptr;           // [experts]
  int32_t* tile_start = nullptr;    // [experts + 1]
  int32_t* next = nullptr;          // [experts]: counts, then the next free place
  int32_t* source = nullptr;        // [choices]: which choice stands where
};

__device__ inline int32_t PrefixSum(int32_t v, int lane) {
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t before = __shfl_up_sync(kAllLanes, v, step);
    if (lane >= step) v += before;
  }
  return v;
}

// By one warp: from counts to ends, starts of tiles, and first places (in `next`, which may be
// where the counts are).
__device__ void ScanCounts(const Grouping& g, const int32_t* counts, int32_t* next) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int32_t rows = 0, tiles = 0;  // before
  for (int32_t base = 0; base < g.experts; base += kWarp) {
    const int32_t e = base + lane;
    const int32_t count = e < g.experts ? counts[e] : 0;
    const auto own_tiles = static_cast<int32_t>(CeilDiv(count, g.tile_rows));
    const int32_t row_end = rows + PrefixSum(count, lane);
    const int32_t tile_end = tiles + PrefixSum(own_tiles, lane);
    if (e < g.experts) {
      g.end[e] = row_end;
      g.tile_start[e] = tile_end - own_tiles;
      next[e] = row_end - count;
    }
    rows = __shfl_sync(kAllLanes, row_end, kWarp - 1);
    tiles = __shfl_sync(kAllLanes, tile_end, kWarp - 1);
  }
  if (lane == 0) g.tile_start[g.experts] = tiles;
}

// All of it for few choices.
__global__ void __launch_bounds__(kThreads) GroupKernel(Grouping g) {
  __shared__ int32_t next[kMaxExperts];
  for (int e = static_cast<int>(threadIdx.x); e < g.experts; e += kThreads) next[e] = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < g.choices; i += kThreads) atomicAdd(&next[g.expert[i]], 1);
  __syncthreads();
  if (threadIdx.x < kWarp) ScanCounts(g, next, next);
  __syncthreads();
  for (int64_t i = threadIdx.x; i < g.choices; i += kThreads) {
    const int32_t at = atomicAdd(&next[g.expert[i]], 1);
    g.slot[i] = at;
    g.source[at] = static_cast<int32_t>(i);
  }
}

// The same in three launches for many.
__global__ void __launch_bounds__(kThreads) CountKernel(Grouping g) {
  __shared__ int32_t counts[kMaxExperts];
  for (int e = static_cast<int>(threadIdx.x); e < g.experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < g.choices) atomicAdd(&counts[g.expert[i]], 1);
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < g.experts; e += kThreads) {
    if (counts[e] > 0) atomicAdd(&g.next[e], counts[e]);
  }
}
__global__ void ScanKernel(Grouping g) { ScanCounts(g, g.next, g.next); }
__global__ void __launch_bounds__(kThreads) PlaceKernel(Grouping g) {
  __shared__ int32_t counts[kMaxExperts];  // then: where the block's choices begin
  for (int e = static_cast<int>(threadIdx.x); e < g.experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int32_t expert = i < g.choices ? g.expert[i] : 0;
  const int32_t rank = i < g.choices ? atomicAdd(&counts[expert], 1) : 0;
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < g.experts; e += kThreads) {
    if (counts[e] > 0) counts[e] = atomicAdd(&g.next[e], counts[e]);
  }
  __syncthreads();
  if (i >= g.choices) return;
  g.slot[i] = counts[expert] + rank;
  g.source[counts[expert] + rank] = static_cast<int32_t>(i);
}

absl::Status Group(const Grouping& g, cudaStream_t stream) {
  if (g.choices <= kOneBlock) {
    StartOn(stream, GroupKernel, 1, kThreads, 0, g);
    return LaunchStatus("Experts, grouping");
  }
  const absl::Status cleared = CudaStatus(
      cudaMemsetAsync(g.next, 0, static_cast<size_t>(g.experts) * sizeof(int32_t), stream),
      "Experts, grouping");
  if (!cleared.ok()) return cleared;
  const auto blocks = static_cast<unsigned>(CeilDiv(g.choices, kThreads));
  StartOn(stream, CountKernel, blocks, kThreads, 0, g);
  StartOn(stream, ScanKernel, 1, kWarp, 0, g);
  StartOn(stream, PlaceKernel, blocks, kThreads, 0, g);
  return LaunchStatus("Experts, grouping");
}

// y[row] = sum of weight * what its experts gave. Blocks: (rows, parts of the width).
template <int kCount>
__global__ void CombineKernel(ExpertsParams p) {
  const int64_t row = blockIdx.x;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kCount;
  if (column >= p.width) return;
  float sum[kCount] = {};
  for (int64_t i = row * p.chosen; i < (row + 1) * p.chosen; ++i) {
    float part[kCount];
    LoadActs(p.gathered.data, p.gathered.dtype, p.slot[i] * p.width + column, part);
    const float weight = p.weight[i];
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum[j] += __fmul_rn(weight, part[j]);
  }
  StoreActs(p.y.data, p.y.dtype, row * p.width + column, sum);
}

absl::Status Combine(const ExpertsParams& p, cudaStream_t stream) {
  constexpr int kAcross = 256;
  const bool vectors = TakesVectors(p.gathered.data, p.width) && TakesVectors(p.y.data, p.width);
  const dim3 grid(static_cast<unsigned>(p.rows),
                  static_cast<unsigned>(CeilDiv(p.width, kAcross * (vectors ? kVector : 1))));
  if (vectors) {
    StartOn(stream, CombineKernel<kVector>, grid, kAcross, 0, p);
  } else {
    StartOn(stream, CombineKernel<1>, grid, kAcross, 0, p);
  }
  return LaunchStatus("Experts, sums");
}

absl::Status Check(const ExpertsParams& p) {
  const bool sizes = p.rows > 0 && p.width > 0 && p.expert_width > 0 && p.experts > 0 &&
                     p.chosen > 0 && p.chosen <= p.experts &&
                     p.rows <= std::numeric_limits<int32_t>::max() / p.chosen;
  if (!sizes) return Require(false, "Experts", "a size out of range");
  if (p.experts > kMaxExperts) return Require(false, "Experts", "more than 512 experts");
  const bool arrays = p.x.data && p.expert && p.weight && p.up && p.down && p.gathered.data &&
                      p.inside.data && p.slot && p.end && p.y.data;
  if (!arrays) return Require(false, "Experts", "missing array");
  const int64_t inside = p.gated ? 2 * p.expert_width : p.expert_width;
  for (int32_t e = 0; e < p.experts; ++e) {
    const bool fits = p.up[e].k == p.width && p.up[e].n == inside &&
                      p.down[e].k == p.expert_width && p.down[e].n == p.width &&
                      p.up[e].dtype == p.up[0].dtype && p.down[e].dtype == p.down[0].dtype;
    if (!fits) return Require(false, "Experts", "a matrix of another size or dtype");
  }
  return absl::OkStatus();
}

absl::StatusOr<Grouping> GroupingIn(const ExpertsParams& p, const Launch& launch) {
  Grouping g;
  g.choices = p.rows * p.chosen;
  g.experts = p.experts;
  g.tile_rows = g.choices <= p.experts * (kSmallExpertTile / 2) ? kSmallExpertTile : kExpertTile;
  g.expert = p.expert;
  g.slot = p.slot;
  g.end = p.end;
  const absl::StatusOr<void*> scratch =
      launch.cuda->Scratch(static_cast<size_t>(2 * p.experts + 1 + g.choices) * sizeof(int32_t));
  if (!scratch.ok()) return scratch.status();
  g.tile_start = static_cast<int32_t*>(*scratch);
  g.next = g.tile_start + p.experts + 1;
  g.source = g.next + p.experts;
  return g;
}

ExpertGemm::Matrices Pointers(const PackedMatrix* matrices, int32_t experts) {
  ExpertGemm::Matrices pointers = {};
  for (int32_t e = 0; e < experts; ++e) pointers.of[e] = matrices[e].data;
  return pointers;
}

}  // namespace

absl::Status Experts(const ExpertsParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "Experts"); !s.ok()) return s;
  if (p.rows == 0) return absl::OkStatus();
  if (absl::Status s = Check(p); !s.ok()) return s;
  const cudaStream_t stream = launch.cuda->stream();
  const absl::StatusOr<Grouping> g = GroupingIn(p, launch);
  if (!g.ok()) return g.status();
  if (absl::Status s = Group(*g, stream); !s.ok()) return s;
  ExpertGemm gemm;
  gemm.experts = p.experts;
  gemm.rows = g->choices;
  gemm.tile_rows = g->tile_rows;
  gemm.max_tiles = g->choices / g->tile_rows + std::min<int64_t>(p.experts, g->choices);
  gemm.end = g->end;
  gemm.tile_start = g->tile_start;
  gemm.source = g->source;
  gemm.divisor = p.chosen;
  gemm.n = p.up[0].n;
  gemm.k = p.width;
  gemm.weights = p.up[0].dtype;
  gemm.x = p.x;
  gemm.x_stride = p.width;
  gemm.y = p.inside;
  gemm.y_stride = gemm.n;
  if (absl::Status s = MultiplyByExpert(gemm, Pointers(p.up, p.experts), stream); !s.ok()) return s;
  GatedMulParams act;
  act.rows = g->choices;
  act.width = p.expert_width;
  act.activation = p.activation;
  act.gate = p.inside;
  act.y = p.inside;
  if (p.gated) act.up = p.inside + p.expert_width;
  act.in_stride = act.y_stride = gemm.n;
  if (absl::Status s = cuda::GatedMul(act, launch); !s.ok()) return s;
  gemm.source = nullptr;
  gemm.x = p.inside;
  gemm.x_stride = gemm.n;
  gemm.n = p.width;
  gemm.k = p.expert_width;
  gemm.weights = p.down[0].dtype;
  gemm.y = p.gathered;
  gemm.y_stride = p.width;
  if (absl::Status s = MultiplyByExpert(gemm, Pointers(p.down, p.experts), stream); !s.ok()) {
    return s;
  }
  return Combine(p, stream);
}

}  // namespace anabranch::kernels::cuda
