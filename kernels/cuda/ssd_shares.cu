// What of a step that defers is the same for all rows of a head's S: how much of each token's x is
// in y, (C . B) * dt * what has decayed since, and what is left of S. Blocks that work it out for
// themselves do so for few rows of S each: with 256 sequences most instructions were not about S.
// A block here: some heads of a group of one sequence, which share C . B.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/ssd_deferred.h"
#include "kernels/cuda/ssd_tokens.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kHeadsOfBlock = 16;

// What of the launch's token is pending from now on is kept here, but its x.
__global__ void __launch_bounds__(kThreads) Shares(SsdScanParams p) {
  __shared__ float dots[kMostTokens];  // C . B of each token
  LetNextStart();
  WaitForInputs();
  const auto seq = static_cast<int32_t>(blockIdx.x), group = static_cast<int32_t>(blockIdx.y);
  if (!Concerns<true>(p, seq)) return;
  const int before = p.pending.before[seq], count = before + 1;
  const bool keeps = p.pending.after[seq] != 0;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int32_t heads = p.heads / p.groups, end = (group + 1) * heads;
  const int32_t first = group * heads + static_cast<int32_t>(blockIdx.z) * kHeadsOfBlock;
  Place at = {p.rows.slot[seq], p.rows.row_start[seq], first, group};
  const int64_t own_b = at.row * p.b_stride + int64_t{group} * p.state_dim;
  const int64_t own_c = at.row * p.c_stride + int64_t{group} * p.state_dim;
  for (int k = warp; k < count; k += kWarps) {
    float dot = 0;
    for (int n = lane; n < p.state_dim; n += kWarp) {
      const float b = k == before ? LoadOne(p.b, own_b + n) : LoadOne(p.pending.b, at.B(p, k) + n);
      if (k == before && keeps && blockIdx.z == 0) StoreOne(p.pending.b, at.B(p, k) + n, b);
      dot = fmaf(b, LoadOne(p.c, own_c + n), dot);
    }
    dot = WarpSum(dot);
    if (lane == 0) dots[k] = dot;
  }
  __syncthreads();
  for (at.head = first + warp; at.head < min(first + kHeadsOfBlock, end); at.head += kWarps) {
    float weight;
    const float dt = StepSizes<true>(p, at, before, /*owns=*/true, keeps);
    const float left = Decayed(dt, p.a[at.head], count, weight);
    float* share = SharesOf(p, at);
    if (lane < count) share[lane] = dots[lane] * weight;
    if (lane == count) share[SsdPending::kShares - 1] = left;
  }
}

}  // namespace

absl::Status SsdShares(const SsdScanParams& p, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(p.rows.num_seqs), static_cast<unsigned>(p.groups),
                  static_cast<unsigned>(CeilDiv(p.heads / p.groups, kHeadsOfBlock)));
  return StartEarly(launch, "SsdScan", Shares, grid, kThreads, 0, p);
}

}  // namespace anabranch::kernels::cuda
