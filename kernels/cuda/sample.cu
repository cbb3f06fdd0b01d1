// The best logits and the sum of exponentials are found by many blocks (sample_parts.cu); then a
// block a row, whose logits (200 KB in float32) stay in the cache. Greedy: nothing is left to do.
// A plain draw goes
// through the ids in order, as the CPU does. With top-k or top-p the order is by logit: the best
// 4,096 are found by counting keys in bins, twice 2,048 of them, sorted in shared memory, and added
// up in order. Sums are in double, each in one fixed order.
#include <algorithm>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/sample_row.h"
#include "kernels/cuda/start.h"
#include "kernels/sample.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBinBits = 11;
constexpr int kBins = 1 << kBinBits;
constexpr int kEach = kMaxCandidates / kThreads;

// One row's logits.
template <class T>
struct Row {
  const T* logits;
  int32_t valid, vocab;

  __device__ float operator[](int32_t token) const { return Widen(logits[token]); }
};

struct Shared {
  uint64_t keys[kMaxCandidates];
  double sums[kWarps];
  Best best[kWarps];
  int32_t bins[kBins];
  int32_t warp_count[kWarps];
  int32_t count, token, bin, above;
};

__device__ double BlockSum(double v, Shared& shared) {
  v = WarpSum(v);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared.sums[threadIdx.x / kWarp] = v;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < kWarps; ++w) sum += shared.sums[w];
  return sum;
}

// The sum of all threads' values up to and with this one's.
__device__ double PrefixSum(double v, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int step = 1; step < kWarp; step *= 2) {
    const double before = __shfl_up_sync(kAllLanes, v, step);
    if (lane >= step) v += before;
  }
  __syncthreads();
  if (lane == kWarp - 1) shared.sums[threadIdx.x / kWarp] = v;
  __syncthreads();
  double before = 0;
  for (int w = 0; w < static_cast<int>(threadIdx.x) / kWarp; ++w) before += shared.sums[w];
  return before + v;
}

// Sum of the weights of the first `count` ids that are at least `least`.
template <class T>
__device__ double SumOfWeights(const Row<T>& row, int32_t count, float best, float temperature,
                               float least, Shared& shared) {
  double sum = 0;
#pragma unroll 8
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count; i += kThreads) {
    const float weight = Weight(row[i], best, temperature);
    if (weight >= least) sum += weight;
  }
  return BlockSum(sum, shared);
}

// In the order of ids: the first at which the sum of weights passes uniform * all of it.
template <class T>
__device__ int32_t DrawInOrder(const Row<T>& row, const RowSampling& rule, float best,
                               Shared& shared) {
  const double target =
      rule.uniform * SumOfWeights(row, row.valid, best, rule.temperature, rule.min_p, shared);
  if (threadIdx.x == 0) {
    shared.token = -1;
    shared.above = -1;
  }
  double before = 0;
  for (int32_t base = 0; base < row.valid; base += kThreads) {
    const int32_t i = base + static_cast<int32_t>(threadIdx.x);
    float weight = i < row.valid ? Weight(row[i], best, rule.temperature) : 0;
    if (weight < rule.min_p) weight = 0;
    const double sum = before + PrefixSum(weight, shared);
    const bool passes = weight > 0 && sum > target;
    // The first of this round, if any; and the last that has a weight, for what rounding leaves.
    const unsigned lanes = __ballot_sync(kAllLanes, passes);
    const unsigned some = __ballot_sync(kAllLanes, weight > 0);
    if (threadIdx.x % kWarp == 0) {
      shared.warp_count[threadIdx.x / kWarp] = lanes == 0 ? -1 : i + __ffs(lanes) - 1;
      shared.best[threadIdx.x / kWarp].token = some == 0 ? -1 : i + 31 - __clz(some);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int w = 0; w < kWarps; ++w) {
        if (shared.token < 0) shared.token = shared.warp_count[w];
        shared.above = max(shared.above, shared.best[w].token);
      }
    }
    if (threadIdx.x == kThreads - 1) shared.sums[0] = sum;
    __syncthreads();
    before = shared.sums[0];
    if (shared.token >= 0) break;  // all threads alike: it changes only between barriers
    __syncthreads();
  }
  __syncthreads();
  const int32_t token = shared.token >= 0 ? shared.token : shared.above;
  return max(token, 0);
}

__device__ inline uint32_t Ordered(float v) {
  const uint32_t bits = __float_as_uint(v);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float FromOrdered(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}

// Body(token, logit) for every id that has a weight.
template <class T, class Body>
__device__ inline void ForWeighted(const Row<T>& row, float best, float temperature,
                                   const Body& body) {
#pragma unroll 8
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < row.valid; i += kThreads) {
    const float logit = row[i];
    if (Weight(logit, best, temperature) > 0) body(i, logit);
  }
}

// The highest bins that hold at most `room` together: shared.bin is the first of them, shared.above
// how many they hold. Two bins a thread, from the top.
__device__ void TakeBins(int32_t room, Shared& shared) {
  static_assert(kBins == 2 * kThreads);
  __syncthreads();
  const int top = kBins - 1 - 2 * static_cast<int>(threadIdx.x);
  const int32_t own[2] = {shared.bins[top], shared.bins[top - 1]};
  const double second = PrefixSum(own[0] + own[1], shared), first = second - own[1];
  const auto taken =
      static_cast<int32_t>(BlockSum((first <= room ? 1 : 0) + (second <= room ? 1 : 0), shared));
  if (threadIdx.x == 0 && taken == 0) shared.above = 0;
  if (taken > 0 && (taken - 1) / 2 == static_cast<int32_t>(threadIdx.x)) {
    shared.above = static_cast<int32_t>(taken % 2 == 0 ? second : first);
  }
  if (threadIdx.x == 0) shared.bin = kBins - taken;
  __syncthreads();
}

__device__ void ClearBins(Shared& shared) {
  for (int i = static_cast<int>(threadIdx.x); i < kBins; i += kThreads) shared.bins[i] = 0;
  __syncthreads();
}

// The best candidates, at most kMaxCandidates and no other equal to one of them, sorted in
// shared.keys; shared.count of them. True if these are all.
template <class T>
__device__ bool SortCandidates(const Row<T>& row, float best, float temperature, Shared& shared) {
  constexpr int kHigh = 32 - kBinBits, kLow = 32 - 2 * kBinBits;
  ClearBins(shared);
  ForWeighted(row, best, temperature,
              [&](int32_t, float v) { atomicAdd(&shared.bins[Ordered(v) >> kHigh], 1); });
  TakeBins(kMaxCandidates, shared);
  const int32_t above = shared.above;
  const auto edge = static_cast<uint32_t>(shared.bin);  // bins from here on are taken whole
  uint64_t least = static_cast<uint64_t>(edge) << kHigh;
  if (edge > 0) {  // the bin below is taken in part
    __syncthreads();
    ClearBins(shared);
    ForWeighted(row, best, temperature, [&](int32_t, float v) {
      const uint32_t key = Ordered(v);
      if (key >> kHigh == edge - 1) atomicAdd(&shared.bins[key >> kLow & (kBins - 1)], 1);
    });
    TakeBins(kMaxCandidates - above, shared);
    least -= (uint64_t{1} << kHigh) - (static_cast<uint64_t>(shared.bin) << kLow);
  }
  __syncthreads();
  if (threadIdx.x == 0) shared.count = 0;
  for (int i = static_cast<int>(threadIdx.x); i < kMaxCandidates; i += kThreads) shared.keys[i] = 0;
  __syncthreads();
  ForWeighted(row, best, temperature, [&](int32_t token, float v) {
    const uint32_t key = Ordered(v);
    if (key < least) return;
    shared.keys[atomicAdd(&shared.count, 1)] =
        (static_cast<uint64_t>(key) << 32) | (0xFFFFFFFFu - static_cast<uint32_t>(token));
  });
  for (int size = 2; size <= kMaxCandidates; size *= 2) {  // bitonic, descending
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kMaxCandidates / 2; i += kThreads) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const uint64_t a = shared.keys[low], b = shared.keys[high];
        if ((a < b) == ((low & size) == 0)) {
          shared.keys[low] = b;
          shared.keys[high] = a;
        }
      }
    }
  }
  __syncthreads();
  return edge == 0;
}

// The first of `count` sorted candidates whose sum, with all before, is at least (or above)
// `least`. `sum` are those of this thread's kEach neighbours. `count` if there is none.
__device__ int32_t FirstReaching(const double (&sum)[kEach], double least, bool above,
                                 int32_t count, Shared& shared) {
  int32_t first = count;
  for (int i = kEach; i-- > 0;) {
    const int32_t at = static_cast<int32_t>(threadIdx.x) * kEach + i;
    if (at < count && (above ? sum[i] > least : sum[i] >= least)) first = at;
  }
  __syncthreads();
  if (threadIdx.x == 0) shared.token = count;
  __syncthreads();
  atomicMin(&shared.token, first);
  __syncthreads();
  return shared.token;
}

// In the order of logits, with top-k, top-p and min-p.
template <class T>
__device__ int32_t DrawBest(const Row<T>& row, const RowSampling& rule, float best,
                            Shared& shared) {
  const bool all = SortCandidates(row, best, rule.temperature, shared);
  const int32_t gathered = shared.count;
  const bool by_count = rule.top_k > 0 && (!all || rule.top_k < gathered);
  if (by_count && rule.top_k > gathered) return -1;
  int32_t count = by_count ? rule.top_k : gathered;
  double sum[kEach], own = 0;  // of this thread's neighbours
  for (int i = 0; i < kEach; ++i) {
    const int32_t at = static_cast<int32_t>(threadIdx.x) * kEach + i;
    if (at < count) {
      const float logit = FromOrdered(static_cast<uint32_t>(shared.keys[at] >> 32));
      own += Weight(logit, best, rule.temperature);
    }
    sum[i] = own;
  }
  const double before = PrefixSum(own, shared) - own;
  for (int i = 0; i < kEach; ++i) sum[i] += before;
  // Of those that top-k left; the weights of the others are added up, too, without it.
  double total = BlockSum(own, shared);
  if (!by_count && !all) {
    total = SumOfWeights(row, row.valid, best, rule.temperature, 0, shared);
  }
  if (rule.top_p < 1) {
    const int32_t last = FirstReaching(sum, rule.top_p * total, false, count, shared);
    if (last == count && !by_count && !all) return -1;
    count = min(last + 1, count);
  } else if (!by_count && !all) {
    return -1;
  }
  if (rule.min_p > 0) {
    int32_t kept = 0;
    for (int i = 0; i < kEach; ++i) {
      const int32_t at = static_cast<int32_t>(threadIdx.x) * kEach + i;
      if (at >= count) break;
      const float logit = FromOrdered(static_cast<uint32_t>(shared.keys[at] >> 32));
      kept += Weight(logit, best, rule.temperature) >= rule.min_p;
    }
    count = static_cast<int32_t>(BlockSum(kept, shared));  // they are the first
  }
  __syncthreads();
  if (static_cast<int32_t>(threadIdx.x) == (count - 1) / kEach) {
    shared.sums[0] = sum[(count - 1) % kEach];
  }
  __syncthreads();
  const double target = rule.uniform * shared.sums[0];
  const int32_t at = min(FirstReaching(sum, target, true, count, shared), count - 1);
  return static_cast<int32_t>(0xFFFFFFFFu - static_cast<uint32_t>(shared.keys[at]));
}

template <class T>
__global__ void __launch_bounds__(kThreads) SampleKernel(SampleParams p, const RowPart* parts) {
  __shared__ Shared shared;
  const int64_t at = blockIdx.x;
  const Row<T> row = {static_cast<const T*>(p.logits.data) + at * p.logits_stride, p.valid_vocab,
                      p.vocab};
  const RowSampling rule = p.rules == nullptr ? RowSampling() : p.rules[at];
  const RowPart found = JoinRowParts(parts + at * kRowParts);
  const Best best = found.valid;
  int32_t token = max(best.token, 0);
  if (rule.temperature > 0 && best.token >= 0) {
    // As on the CPU, top-k that takes nothing away leaves the order of ids.
    bool by_rank = rule.top_p < 1;
    if (!by_rank && rule.top_k > 0) {
      double weighted = 0;
      ForWeighted(row, best.logit, rule.temperature, [&](int32_t, float) { weighted += 1; });
      by_rank = rule.top_k < BlockSum(weighted, shared);
    }
    token = by_rank ? DrawBest(row, rule, best.logit, shared)
                    : DrawInOrder(row, rule, best.logit, shared);
  }
  if (threadIdx.x != 0) return;
  p.token[at] = token;
  if (p.finite != nullptr) p.finite[at] = found.finite;
  if (p.logprob == nullptr) return;
  const float logit = token < 0 ? kLowestLogit : row[token];
  const bool known = found.all.token >= 0 && token >= 0 && isfinite(logit);
  p.logprob[at] =
      known ? logit - (found.all.logit + static_cast<float>(log(found.sum))) : kLowestLogit;
}

}  // namespace

absl::Status Sample(const SampleParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, false, "Sample"); !s.ok()) return s;
  if (p.rows == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.logits.data != nullptr && p.token != nullptr && p.vocab > 0 &&
                  p.valid_vocab >= 0 && p.valid_vocab <= p.vocab && p.logits_stride >= p.vocab;
  if (!ok) return Require(false, "Sample", "a size out of range or a missing array");
  const auto rows = static_cast<size_t>(p.rows);
  const absl::StatusOr<void*> scratch = launch.cuda->Scratch(rows * kRowParts * sizeof(RowPart));
  if (!scratch.ok()) return scratch.status();
  auto* const parts = static_cast<RowPart*>(*scratch);
  if (absl::Status s = FindRowParts(p, parts, launch); !s.ok()) return s;
  auto* const kernel = p.logits.dtype == DType::kFloat32 ? SampleKernel<float> : SampleKernel<Bf16>;
  return Start(launch, "Sample", kernel, static_cast<unsigned>(rows), kThreads, 0, p, parts);
}

}  // namespace anabranch::kernels::cuda
