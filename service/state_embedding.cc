#include "service/state_embedding.h"

#include <cmath>

namespace anabranch {

std::vector<float> EmbeddingOf(absl::Span<const float> inner_sum) {
  double square = 0;
  for (float value : inner_sum) square += double{value} * value;
  if (!(square > 0) || !std::isfinite(square)) return {};
  const double scale = 1 / std::sqrt(square);
  std::vector<float> embedding;
  embedding.reserve(inner_sum.size());
  for (float value : inner_sum) embedding.push_back(static_cast<float>(value * scale));
  return embedding;
}

}  // namespace anabranch
