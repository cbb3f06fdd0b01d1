// The embedding of a state or a query, as the search index wants it.
#pragma once

#include <vector>

#include "absl/types/span.h"

namespace anabranch {

// The direction of an inner sum (Engine::InnerSum), of length 1; empty if there is none.
std::vector<float> EmbeddingOf(absl::Span<const float> inner_sum);

}  // namespace anabranch
