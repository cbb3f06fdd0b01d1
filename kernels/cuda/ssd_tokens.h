// The tokens of a sequence that are not in S (SsdPending), for the kernels that bring them into y
// and into S. Only .cu files include it.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/ssd_scan.h"

namespace anabranch::kernels::cuda {

inline constexpr int kMostTokens = SsdPending::kMost + 1;  // with the launch's own

// Where the tokens of a sequence lie, and which head of it is meant.
struct Place {
  int64_t slot, row;
  int32_t head, group;
  __device__ int64_t B(const SsdScanParams& p, int k) const {
    return slot * p.pending.b_slot_stride + (int64_t{k} * p.groups + group) * p.state_dim;
  }
  __device__ int64_t X(const SsdScanParams& p, int k) const {
    return slot * p.pending.x_slot_stride + (int64_t{k} * p.heads + head) * p.head_dim;
  }
  __device__ int64_t Dt(const SsdScanParams& p, int k) const {
    return slot * p.pending.dt_slot_stride + int64_t{k} * p.heads + head;
  }
};

__device__ inline float* SharesOf(const SsdScanParams& p, const Place& at) {
  return p.pending.share + at.slot * p.pending.share_slot_stride +
         int64_t{at.head} * SsdPending::kShares;
}

// Which sequences a kernel works on: those with a row that defer, or those to be folded.
template <bool kStep>
__device__ bool Concerns(const SsdScanParams& p, int32_t seq) {
  if (!p.pending.Defers(seq)) return false;
  if constexpr (!kStep) return p.pending.before[seq] > 0 && p.pending.after[seq] == 0;
  return p.rows.row_start[seq + 1] == p.rows.row_start[seq] + 1;
}

// The step size of the lane's token, once the inputs are there. `owns`: this warp brings the
// launch's own into t_sum, and among what is pending where it `keeps` it.
template <bool kStep>
__device__ float StepSizes(const SsdScanParams& p, const Place& at, int before, bool owns,
                           bool keeps) {
  const int lane = threadIdx.x % kWarp;
  if (lane < before) return p.pending.dt[at.Dt(p, lane)];
  if (!kStep || lane > before) return 0;
  const float dt = StepSize(p, at.row, at.head);
  if (owns) {
    p.t_sum[at.slot * p.t_slot_stride + at.head] += static_cast<double>(dt);
    if (keeps) p.pending.dt[at.Dt(p, before)] = dt;
  }
  return dt;
}

// What is left of S after `count` tokens, and for the token that is the lane's number `weight`: how
// much of x outer B is in S. All lanes of a warp call it; `dt`: of the lane's token. Sums run from
// the newest token back, so that none is the difference of large ones.
__device__ inline float Decayed(float dt, float a, int count, float& weight) {
  const int lane = threadIdx.x % kWarp;
  // Of this token and all that are newer. Rounded alike in every kernel.
  float sum = lane < count ? __fmul_rn(dt, a) : 0.0f;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const float newer = __shfl_down_sync(kAllLanes, sum, step);
    if (lane + step < kWarp) sum += newer;
  }
  const float since = __shfl_down_sync(kAllLanes, sum, 1);
  weight = expf(lane + 1 < count ? since : 0.0f) * dt;
  return expf(__shfl_sync(kAllLanes, sum, 0));
}

}  // namespace anabranch::kernels::cuda
