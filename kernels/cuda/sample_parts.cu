// A row of logits is 200 KB: one multiprocessor alone takes ten times as long for it as it takes to
// bring it from memory. So kRowParts blocks look at a row, each once for the best logits, and once
// more, from the cache, for the sum of exponentials.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/sample_row.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

__device__ inline Best BestOfWarp(Best best) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    best = Better(best, {__shfl_xor_sync(kAllLanes, best.logit, step),
                         __shfl_xor_sync(kAllLanes, best.token, step)});
  }
  return best;
}

// Calls body(id, logit) for the ids [begin, end) of this thread. Several loads are under way
// before the first is used.
template <class T, class Body>
__device__ inline void ForOwn(const T* logits, int32_t begin, int32_t end, const Body& body) {
  constexpr int kTogether = 8;
  for (int32_t first = begin + static_cast<int32_t>(threadIdx.x); first < end;
       first += kThreads * kTogether) {
    float v[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const int32_t i = first + k * kThreads;
      v[k] = i < end ? Widen(logits[i]) : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (first + k * kThreads < end) body(first + k * kThreads, v[k]);
    }
  }
}

// Blocks: (rows, kRowParts).
template <class T>
__global__ void __launch_bounds__(kThreads) RowPartsKernel(SampleParams p, RowPart* parts) {
  __shared__ RowPart shared[kWarps];
  const int64_t at = blockIdx.x;
  const T* logits = static_cast<const T*>(p.logits.data) + at * p.logits_stride;
  const int32_t each = (p.vocab + kRowParts - 1) / kRowParts;
  const int32_t begin = static_cast<int32_t>(blockIdx.y) * each;
  const int32_t end = min(p.vocab, begin + each);
  const int thread = static_cast<int>(threadIdx.x);
  RowPart part;
  part.valid = part.all = {kLowestLogit, -1};
  bool finite = true;
  ForOwn(logits, begin, end, [&](int32_t i, float v) {
    const Best found = {v, isfinite(v) ? i : -1};
    finite = finite && found.token >= 0;
    part.all = Better(part.all, found);
    if (i < p.valid_vocab) part.valid = Better(part.valid, found);
  });
  part.valid = BestOfWarp(part.valid), part.all = BestOfWarp(part.all);
  if (thread % kWarp == 0) shared[thread / kWarp] = part;
  finite = __syncthreads_and(finite) != 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    part.valid = Better(part.valid, shared[w].valid);
    part.all = Better(part.all, shared[w].all);
  }
  double sum = 0;
  ForOwn(logits, begin, end,
         [&](int32_t, float v) { sum += Weight(v, part.all.logit, /*temperature=*/1); });
  sum = WarpSum(sum);
  if (thread % kWarp == 0) shared[thread / kWarp].sum = sum;
  __syncthreads();
  if (thread != 0) return;
  part.sum = 0;
  for (int w = 0; w < kWarps; ++w) part.sum += shared[w].sum;
  part.finite = finite ? 1 : 0;
  parts[at * kRowParts + blockIdx.y] = part;
}

}  // namespace

absl::Status FindRowParts(const SampleParams& p, RowPart* parts, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(p.rows), kRowParts);
  auto* const kernel =
      p.logits.dtype == DType::kFloat32 ? RowPartsKernel<float> : RowPartsKernel<Bf16>;
  return Start(launch, "Sample", kernel, grid, kThreads, 0, p, parts);
}

}  // namespace anabranch::kernels::cuda
