#include "runtime/merge_weights.h"

#include <algorithm>
#include <cmath>

namespace anabranch {
namespace {

struct Legendre {
  double value, derivative;
};

// P_n(x) and P_n'(x) by the three-term recurrence.
Legendre EvaluateLegendre(int n, double x) {
  double before = 1, value = x;
  for (int i = 2; i <= n; ++i) {
    const double next = ((2 * i - 1) * x * value - (i - 1) * before) / i;
    before = value;
    value = next;
  }
  return {value, n * (x * value - before) / (x * x - 1)};
}

}  // namespace

// Newton's method from Chebyshev's guess; the nodes of [-1, 1] moved to [0, 1].
MergeWeights::MergeWeights(int n) : before_(n) {
  constexpr double kPi = 3.14159265358979323846;
  const int count = std::max((n + 1) / 2, 1);
  for (int i = 0; i < count; ++i) {
    double x = std::cos(kPi * (i + 0.75) / (count + 0.5));
    for (int step = 0; step < 100; ++step) {
      const Legendre p = EvaluateLegendre(count, x);
      const double move = p.value / p.derivative;
      x -= move;
      if (std::abs(move) < 1e-16) break;
    }
    const double slope = EvaluateLegendre(count, x).derivative;
    nodes_.push_back((x + 1) / 2);
    node_weights_.push_back(1 / ((1 - x * x) * slope * slope));
  }
}

// Products before and after each context: nothing is divided by a factor that may be zero.
void MergeWeights::Compute(absl::Span<const double> transitions, absl::Span<double> weights) {
  const size_t n = transitions.size();
  std::fill(weights.begin(), weights.end(), 0.0);
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const double t = nodes_[i];
    double product = 1;
    for (size_t k = 0; k < n; ++k) {
      before_[k] = product;
      product *= (1 - t) + t * transitions[k];
    }
    product = node_weights_[i];
    for (size_t k = n; k-- > 0;) {
      weights[k] += before_[k] * product;
      product *= (1 - t) + t * transitions[k];
    }
  }
}

}  // namespace anabranch
