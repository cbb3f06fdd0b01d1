// How much each of several contexts keeps when they are composed in no particular order.
#pragma once

#include <vector>

#include "absl/types/span.h"

namespace anabranch {

// W_k = integral_0^1 prod_{j != k} ((1 - t) + t P_j) dt: the mean over all orders of n contexts of
// what the ones after k leave of it, when context j decays what was there by P_j in [0, 1]
// (PICASO-S, arXiv 2502.17605, in integral form). Exact: the integrand has degree n - 1, and
// Gauss-Legendre nodes integrate it without error.
class MergeWeights {
 public:
  explicit MergeWeights(int n);
  // `weights` [n] from `transitions` [n].
  void Compute(absl::Span<const double> transitions, absl::Span<double> weights);

 private:
  std::vector<double> nodes_, node_weights_;
  std::vector<double> before_;  // products of the factors before each context
};

}  // namespace anabranch
