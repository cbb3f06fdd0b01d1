// Which experts a row goes to, one warp a row. The same choices as on the CPU: equal scores go to
// the lower index, NaN is chosen only where nothing else is left, and weights come from double
// precision. A row is a few hundred bytes; the launch is what it costs.
#include <algorithm>
#include <limits>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr double kSumFloor = 1e-20;  // as on the CPU

__device__ inline double Sigmoid(double v) { return 1 / (1 + exp(-v)); }

__device__ inline float Logit(const RouteParams& p, int64_t row, int32_t expert) {
  float v[1];
  LoadActs(p.logits.data, p.logits.dtype, row * p.experts + expert, v);
  return v[0];
}

__device__ inline float GroupScore(const float* scores, int32_t size) {
  float best = kLowest, second = kLowest;
  for (int32_t i = 0; i < size; ++i) {
    if (scores[i] > best) {
      second = best;
      best = scores[i];
    } else if (scores[i] > second) {
      second = scores[i];
    }
  }
  return best + second;
}

// Takes all but the best groups out of the ranking. `group_scores` [groups].
__device__ void LimitGroups(const RouteParams& p, int lane, float* scores, float* group_scores) {
  const int32_t size = p.experts / p.groups;
  for (int32_t g = lane; g < p.groups; g += kWarp) {
    group_scores[g] = GroupScore(scores + g * size, size);
  }
  __syncwarp();
  for (int32_t g = lane; g < p.groups; g += kWarp) {
    int32_t better = 0;
    for (int32_t other = 0; other < p.groups; ++other) {
      better += group_scores[other] > group_scores[g] ||
                (group_scores[other] == group_scores[g] && other < g);
    }
    if (better < p.top_groups) continue;
    for (int32_t i = 0; i < size; ++i) scores[g * size + i] = kLowest;
  }
  __syncwarp();
}

struct Best {
  float score;
  int32_t expert;  // < 0: none
};

__device__ inline bool IsBetter(const Best& a, const Best& b) {
  if (a.expert < 0 || b.expert < 0) return b.expert < 0 && a.expert >= 0;
  const bool a_nan = isnan(a.score), b_nan = isnan(b.score);
  if (a_nan != b_nan) return b_nan;
  if (a_nan || a.score == b.score) return a.expert < b.expert;
  return a.score > b.score;
}

// Marks the p.chosen best of `scores` in `taken`.
__device__ void Choose(const RouteParams& p, int lane, const float* scores, uint8_t* taken) {
  for (int32_t e = lane; e < p.experts; e += kWarp) taken[e] = 0;
  __syncwarp();
  for (int32_t i = 0; i < p.chosen; ++i) {
    Best best = {0, -1};
    for (int32_t e = lane; e < p.experts; e += kWarp) {
      const Best other = {scores[e], e};
      if (taken[e] == 0 && IsBetter(other, best)) best = other;
    }
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const Best other = {__shfl_xor_sync(kAllLanes, best.score, step),
                          __shfl_xor_sync(kAllLanes, best.expert, step)};
      if (IsBetter(other, best)) best = other;
    }
    if (lane == 0) taken[best.expert] = 1;
    __syncwarp();
  }
}

// The chosen experts, ascending, and their weights.
__device__ void StoreChoices(const RouteParams& p, int64_t row, int lane, const uint8_t* taken) {
  const bool sigmoid = p.kind == RouterKind::kSigmoid;
  float most = kLowest;
  for (int32_t e = lane; e < p.experts; e += kWarp) most = fmaxf(most, Logit(p, row, e));
  const double largest = WarpMax(most);
  const auto raw = [&](int32_t e) {
    const double logit = Logit(p, row, e);
    return sigmoid ? Sigmoid(logit) : exp(logit - largest);
  };
  double all = 0, some = 0;
  for (int32_t e = lane; e < p.experts; e += kWarp) {
    const double weight = raw(e);
    all += weight;
    if (taken[e] != 0) some += weight;
  }
  all = WarpSum(all);
  some = WarpSum(some);
  double factor = p.scale;
  if (p.kind == RouterKind::kSoftmaxThenTopK && !p.normalize) factor /= all;
  if (p.kind == RouterKind::kTopKThenSoftmax || p.normalize) factor /= some + kSumFloor;
  int64_t at = row * p.chosen;
  for (int32_t base = 0; base < p.experts; base += kWarp) {
    const int32_t e = base + lane;
    const bool mine = e < p.experts && taken[e] != 0;
    const unsigned lanes = __ballot_sync(kAllLanes, mine);
    if (mine) {
      const int64_t to = at + __popc(lanes & ((1u << lane) - 1));
      p.expert[to] = e;
      p.weight[to] = static_cast<float>(raw(e) * factor);
    }
    at += __popc(lanes);
  }
}

__global__ void __launch_bounds__(kWarps* kWarp) RouteKernel(RouteParams p) {
  // A warp's scores, scores of groups, marks.
  auto* const memory = static_cast<float*>(DynamicShared());
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (row >= p.rows) return;
  const int32_t marks = (p.experts + 3) / 4;
  float* scores = memory + warp * (p.experts + p.groups + marks);
  float* group_scores = scores + p.experts;
  auto* taken = reinterpret_cast<uint8_t*>(group_scores + p.groups);
  for (int32_t e = lane; e < p.experts; e += kWarp) {
    const float logit = Logit(p, row, e);
    scores[e] = p.kind != RouterKind::kSigmoid
                    ? logit
                    : static_cast<float>(Sigmoid(logit)) + (p.bias == nullptr ? 0 : p.bias[e]);
  }
  __syncwarp();
  if (p.groups != p.top_groups) LimitGroups(p, lane, scores, group_scores);
  Choose(p, lane, scores, taken);
  StoreChoices(p, row, lane, taken);
}

}  // namespace

absl::Status Route(const RouteParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "Route"); !s.ok()) return s;
  if (p.rows == 0) return absl::OkStatus();
  const bool sizes = p.rows > 0 && p.chosen > 0 && p.chosen <= p.experts && p.groups > 0 &&
                     p.experts % p.groups == 0 && p.top_groups > 0 && p.top_groups <= p.groups &&
                     p.chosen <= p.top_groups * (p.experts / p.groups);
  if (!sizes) return Require(false, "Route", "sizes do not fit together");
  if (p.logits.data == nullptr || p.expert == nullptr || p.weight == nullptr) {
    return Require(false, "Route", "missing array");
  }
  const size_t shared = size_t{kWarps} * sizeof(float) *
                        static_cast<size_t>(p.experts + p.groups + (p.experts + 3) / 4);
  if (shared > 48 * 1024) return Require(false, "Route", "more than 1,300 experts");
  StartOn(launch.cuda->stream(), RouteKernel, static_cast<unsigned>(CeilDiv(p.rows, kWarps)),
          kWarps * kWarp, shared, p);
  return LaunchStatus("Route");
}

}  // namespace anabranch::kernels::cuda
