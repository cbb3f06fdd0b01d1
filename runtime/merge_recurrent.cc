#include "runtime/merge_recurrent.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/merge_weights.h"

namespace anabranch {
namespace {

// S = base S_O + sum_k factor[k] S_k, for elements that share their transitions.
struct Combination {
  double base = 0;
  std::vector<double> factor;
};

// The last input's factor is its weight; each one before is decayed by all that follow.
void CombineInOrder(const MergeOptions& options, absl::Span<const double> transitions,
                    Combination& out) {
  double later = 1;
  out.base = 0;
  for (size_t k = transitions.size(); k-- > 0;) {
    out.factor[k] = options.weights[k] * later;
    out.base -= out.factor[k] * transitions[k];
    later *= transitions[k];
  }
  out.base += later;
}

void CombineInAnyOrder(const MergeOptions& options, absl::Span<const double> transitions,
                       MergeWeights& weights, Combination& out) {
  weights.Compute(transitions, absl::MakeSpan(out.factor));
  double sum = 0;
  out.base = 1;
  for (size_t k = 0; k < transitions.size(); ++k) {
    sum += out.factor[k];
    out.base *= transitions[k];
  }
  const double scale = options.norm == MergeNorm::kWeights ? 1 / sum : 1;
  for (size_t k = 0; k < transitions.size(); ++k) {
    out.factor[k] *= options.weights[k] * scale;
    out.base -= out.factor[k] * transitions[k];
  }
}

void Combine(const MergeOptions& options, absl::Span<const double> transitions, double weight_sum,
             MergeWeights& weights, Combination& out) {
  if (options.method == MergeMethod::kOrdered) return CombineInOrder(options, transitions, out);
  if (options.method == MergeMethod::kCompose) {
    return CombineInAnyOrder(options, transitions, weights, out);
  }
  for (size_t k = 0; k < out.factor.size(); ++k) out.factor[k] = options.weights[k] / weight_sum;
}

// What a layer needs while it is merged. Elements of one group (head or channel) are contiguous;
// they decay alike, or each by its index in the last dimension, of num_rates.
struct Scratch {
  double weight_sum = 0;
  // By rate: the factors of S_O and, one input after the other, of each S_k.
  std::vector<double> base, factors;
  // Elements at a time, small enough for the nearest cache. A payload keeps no alignment.
  std::vector<float> part;
  std::vector<double> sum;
};

// sum[i] += factor(i) * in[i], eight at a time: so many compilers make vectors of.
template <typename Factor>
void AddProducts(const Factor& factor, const float* __restrict in, int64_t count,
                 double* __restrict sum) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (int64_t j = 0; j < 8; ++j) sum[i + j] += factor(i + j) * in[i + j];
  }
  for (; i < count; ++i) sum[i] += factor(i) * in[i];
}

void AddScaled(const char* from, StateDType dtype, absl::Span<const double> factors, int64_t count,
               Scratch& scratch) {
  float* const in = scratch.part.data();
  double* const sum = scratch.sum.data();
  LoadFloats(from, dtype, count, in);
  if (factors.size() == 1) {
    const double factor = factors[0];
    return AddProducts([factor](int64_t) { return factor; }, in, count, sum);
  }
  const int64_t rates = static_cast<int64_t>(factors.size());
  for (int64_t at = 0; at < count; at += rates) {
    AddProducts([factors](int64_t r) { return factors[r]; }, in + at, rates, sum + at);
  }
}

// Of a group that begins at `from`.
double Norm(const char* from, const RecurrentLayer& layer) {
  double sum = 0;
  for (int64_t i = 0; i < layer.decay.size; ++i) {
    float value;
    LoadFloats(from + layer.BytesOf(i), layer.dtype, 1, &value);
    sum += double{value} * value;
  }
  return std::sqrt(sum);
}

// A group, whose bytes begin at `offset` in the tensor, to the mean norm that it has in the inputs.
void ScaleToInputs(const MergeOptions& options, double weight_sum, int64_t offset,
                   const RecurrentLayer& layer) {
  double wanted = 0;
  for (size_t k = 0; k < layer.in.size(); ++k) {
    wanted += options.weights[k] * Norm(layer.in[k] + offset, layer);
  }
  char* const group = layer.out + offset;
  const double norm = Norm(group, layer);
  if (norm == 0) return;
  const auto scale = static_cast<float>(wanted / weight_sum / norm);
  for (int64_t i = 0; i < layer.decay.size; ++i) {
    float value;
    LoadFloats(group + layer.BytesOf(i), layer.dtype, 1, &value);
    value *= scale;
    StoreFloats(&value, layer.dtype, 1, group + layer.BytesOf(i));
  }
}

void FindFactors(const MergeOptions& options, const RecurrentLayer& layer, int64_t group,
                 MergeWeights& weights, Combination& with, Scratch& scratch) {
  const float* rates = layer.decay.rates + group * layer.num_rates();
  std::vector<double> transitions(layer.in.size());
  for (int64_t r = 0; r < layer.num_rates(); ++r) {
    for (size_t k = 0; k < transitions.size(); ++k) {
      transitions[k] = std::exp(rates[r] * (layer.t[k][group] - layer.old_t[group]));
    }
    Combine(options, transitions, scratch.weight_sum, weights, with);
    scratch.base[r] = with.base;
    for (size_t k = 0; k < transitions.size(); ++k) {
      scratch.factors[k * layer.num_rates() + r] = with.factor[k];
    }
  }
}

void MergeGroup(const MergeOptions& options, const RecurrentLayer& layer, int64_t group,
                Scratch& scratch) {
  const int64_t size = layer.decay.size, step = static_cast<int64_t>(scratch.sum.size());
  const absl::Span<const double> factors = scratch.factors;
  for (int64_t at = 0; at < size; at += step) {
    const int64_t count = std::min(step, size - at);
    const int64_t offset = layer.BytesOf(group * size + at);
    std::fill_n(scratch.sum.begin(), count, 0.0);
    if (layer.old != nullptr) {
      AddScaled(layer.old + offset, layer.dtype, scratch.base, count, scratch);
    }
    for (size_t k = 0; k < layer.in.size(); ++k) {
      AddScaled(layer.in[k] + offset, layer.dtype,
                factors.subspan(k * layer.num_rates(), layer.num_rates()), count, scratch);
    }
    std::copy_n(scratch.sum.begin(), count, scratch.part.begin());
    StoreFloats(scratch.part.data(), layer.dtype, count, layer.out + offset);
  }
  if (options.norm == MergeNorm::kInputs) {
    ScaleToInputs(options, scratch.weight_sum, layer.BytesOf(group * size), layer);
  }
}

}  // namespace

void MergeRecurrent(const MergeOptions& options, const RecurrentLayer& layer) {
  constexpr int64_t kElements = 1024;
  const int64_t rates = layer.num_rates();
  Scratch scratch;
  scratch.weight_sum = std::accumulate(options.weights.begin(), options.weights.end(), 0.0);
  scratch.base.resize(rates);
  scratch.factors.resize(rates * layer.in.size());
  scratch.sum.resize(std::max<int64_t>(kElements / rates, 1) * rates);
  scratch.part.resize(scratch.sum.size());
  MergeWeights weights(static_cast<int>(layer.in.size()));
  Combination with;
  with.factor.resize(layer.in.size());
  for (int64_t g = 0; g < layer.decay.groups; ++g) {
    FindFactors(options, layer, g, weights, with, scratch);
    MergeGroup(options, layer, g, scratch);
  }
}

}  // namespace anabranch
