// The two passes over all logits that every sampled token needs, vectorised. Values that are not
// finite have no weight.
#pragma once

#include "absl/types/span.h"

namespace anabranch {

// -infinity if no value is finite.
float LargestFinite(absl::Span<const float> logits);

// weights[i] = exp((logits[i] - best) / temperature), unless `weights` is nullptr; returns their
// sum. `best` is the largest finite logit, temperature > 0.
double SoftmaxWeights(absl::Span<const float> logits, float best, float temperature,
                      float* weights);

}  // namespace anabranch
