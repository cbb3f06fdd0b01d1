// One state out of several that were read separately, without reading anything again.
//
// Per layer and head, with O the ancestor that all inputs grew from (or nothing: S_O = 0, T_O = 0),
// P_k = exp(A (T_k - T_O)) what input k leaves of an older state, and w_k the caller's weights:
//   compose  S = (prod_k P_k) S_O + sum_k w_k W_k (S_k - P_k S_O), W_k of merge_weights.h
//   ordered  S = S_O, then for each k in turn S = P_k S + w_k (S_k - P_k S_O): exact in one layer
//   mean     S = sum_k w_k S_k / sum_k w_k
// An input that added nothing to the ancestor (or to nothing) has no say, unless none added any.
// T is T_O plus what each input added, so that merges can be merged; for mean it is the mean.
// Windows and last logits: the weighted mean; if ordered the last input's, whose window is filled
// from the one before where it read less than a window holds. Keys and values: the ancestor's once,
// then what each input added, in order; rotated keys are turned to their new positions. For a whole
// model every method is an approximation, because upper layers saw each input without the others.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/state_image.h"

namespace anabranch {

enum class MergeMethod : uint8_t { kCompose, kOrdered, kMean };

// What to do about the sum of the weights W_k, which lies between 1 and n.
enum class MergeNorm : uint8_t {
  kNone,
  kWeights,  // divides what the inputs added by sum W_k (compose only; otherwise as kNone)
  kInputs,   // scales each head, or channel, to the mean norm that it has in the inputs
};

struct MergeOptions {
  MergeMethod method = MergeMethod::kCompose;
  MergeNorm norm = MergeNorm::kNone;
  std::vector<double> weights;  // by input, positive; empty: all 1
};

// All images are whole states of one model with this layout; `ancestor` may be null. The result has
// ancestor + sum of (input - ancestor) tokens. INVALID_ARGUMENT for options out of range.
absl::StatusOr<StateImage> MergeStates(const StateLayout& layout,
                                       absl::Span<const StateImage* const> inputs,
                                       const StateImage* ancestor, const MergeOptions& options);

}  // namespace anabranch
