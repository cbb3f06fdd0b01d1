#include "runtime/softmax_weights.h"

#include <algorithm>
#include <cstdint>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/softmax_weights.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/lanes16-inl.h"

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

float LargestFiniteOf(const float* logits, int64_t count) {
  const DF d;
  const VF lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
  VF best = lowest;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const VF v = hn::LoadU(d, logits + i);
    best = hn::Max(best, hn::IfThenElse(hn::IsFinite(v), v, lowest));
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, best));
  for (; i < count; ++i) {
    const bool is_finite = logits[i] - logits[i] == 0;
    if (is_finite) result = std::max(result, logits[i]);
  }
  return result;
}

double Weights(const float* logits, int64_t count, float best, float temperature, float* weights) {
  constexpr int64_t kBlock = 1024;  // summed in floats; the blocks' sums in doubles
  const DF d;
  const VF best_v = hn::Set(d, best), temperature_v = hn::Set(d, temperature);
  double sum = 0;
  for (int64_t block = 0; block < count; block += kBlock) {
    F16 block_sum = Zero16();
    const int64_t end = std::min(count, block + kBlock);
    for (int64_t i = block; i < end; i += 16) {
      const F16 v = Load16UpTo(logits + i, end - i);
      F16 w;
      for (int r = 0; r < kRegs; ++r) {
        const VF x = hn::Div(hn::Sub(v.r[r], best_v), temperature_v);
        // The zeros that Load16UpTo puts behind the end can be far above `best`: no weight either.
        const auto lane = hn::Iota(d, static_cast<float>(r * kLanes));
        const auto inside = hn::Lt(lane, hn::Set(d, static_cast<float>(end - i)));
        const auto counts = hn::And(hn::IsFinite(v.r[r]), inside);
        w.r[r] = hn::IfThenElseZero(counts, hn::Exp(d, hn::Min(x, hn::Zero(d))));
      }
      block_sum = Add16(block_sum, w);
      if (weights != nullptr) Store16UpTo(w, weights + i, end - i);
    }
    sum += Sum16(block_sum);
  }
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch {
namespace kernels {

HWY_EXPORT(LargestFiniteOf);
HWY_EXPORT(Weights);

}  // namespace kernels

float LargestFinite(absl::Span<const float> logits) {
  using namespace kernels;  // NOLINT: the dispatch table
  return HWY_DYNAMIC_DISPATCH(LargestFiniteOf)(logits.data(), static_cast<int64_t>(logits.size()));
}

double SoftmaxWeights(absl::Span<const float> logits, float best, float temperature,
                      float* weights) {
  using namespace kernels;  // NOLINT: the dispatch table
  return HWY_DYNAMIC_DISPATCH(Weights)(logits.data(), static_cast<int64_t>(logits.size()), best,
                                       temperature, weights);
}

}  // namespace anabranch
#endif  // HWY_ONCE
