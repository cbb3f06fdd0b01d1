#include "runtime/state_merge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/float_convert.h"
#include "runtime/host_threads.h"
#include "runtime/merge_kv.h"
#include "runtime/merge_weights.h"
#include "runtime/state_tensors.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// The inputs and where the result goes. Segments of all images lie at the same offsets, except for
// last logits that are missing.
struct Merge {
  const StateLayout& layout;
  absl::Span<const StateImage* const> inputs;
  const StateImage* ancestor;
  MergeMethod method;
  MergeNorm norm;
  std::vector<double> weights;
  double weight_sum = 0;
  StateImage merged;
};

template <typename T>
std::vector<std::vector<T>> ReadAll(const Merge& merge, const StateSegment& segment) {
  std::vector<std::vector<T>> all;
  for (const StateImage* input : merge.inputs) all.push_back(ReadSegment<T>(*input, segment));
  return all;
}

// Windows and last logits, as they are stored: numbers to and from double.
template <typename T, typename ToNumber, typename FromNumber>
void MergeNumbers(Merge& merge, const StateSegment& segment, ToNumber to, FromNumber from) {
  const std::vector<std::vector<T>> in = ReadAll<T>(merge, segment);
  std::vector<T> out(in.front().size());
  for (size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    for (size_t k = 0; k < in.size(); ++k) sum += merge.weights[k] * to(in[k][i]);
    out[i] = from(static_cast<float>(sum / merge.weight_sum));
  }
  WriteSegment(out, segment, merge.merged);
}

// As they come: of an input that read less than a window holds, the one before fills the rest.
void MergeInOrder(Merge& merge, const StateSegment& segment) {
  char* const out = merge.merged.payload.data() + segment.offset;
  const bool window = segment.kind == StateKind::kWindow;
  const int64_t rows = window ? segment.shape.front() : 1;
  const int64_t bytes = static_cast<int64_t>(segment.bytes) / std::max<int64_t>(rows, 1);
  const int64_t old = merge.ancestor ? merge.ancestor->header.token_count : 0;
  int64_t left = rows;
  for (size_t k = merge.inputs.size(); left > 0;) {
    const StateImage& input = *merge.inputs[--k];
    const int64_t fresh = input.header.token_count - old;
    // The first one's window holds what came before it, too: the ancestor's inputs, or zeros.
    const int64_t count = k == 0 || !window ? left : std::min(left, fresh);
    const char* end = input.payload.data() + segment.offset + segment.bytes;
    std::memcpy(out + (left - count) * bytes, end - count * bytes, count * bytes);
    left -= count;
  }
}

void MergeNumbers(Merge& merge, const StateSegment& segment) {
  if (merge.method == MergeMethod::kOrdered) return MergeInOrder(merge, segment);
  if (segment.dtype == StateDType::kBFloat16) {
    MergeNumbers<uint16_t>(
        merge, segment, [](uint16_t bits) { return FromBFloat16(bits); },
        [](float value) { return ToBFloat16(value); });
  } else {
    const auto same = [](float value) { return value; };
    MergeNumbers<float>(merge, segment, same, same);
  }
}

void MergeCumulative(Merge& merge, const StateSegment& segment) {
  const std::vector<std::vector<double>> in = ReadAll<double>(merge, segment);
  const std::vector<double> old = ReadSegment<double>(merge.ancestor, segment);
  const bool mean = merge.method == MergeMethod::kMean;
  std::vector<double> out(old.size());
  for (size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    for (size_t k = 0; k < in.size(); ++k) {
      sum += mean ? merge.weights[k] * in[k][i] : in[k][i] - old[i];
    }
    out[i] = mean ? sum / merge.weight_sum : old[i] + sum;
  }
  WriteSegment(out, segment, merge.merged);
}

// S = base S_O + sum_k factor[k] S_k, for elements that share their transitions.
struct Combination {
  double base = 0;
  std::vector<double> factor;
};

// The last input's factor is its weight; each one before is decayed by all that follow.
void CombineInOrder(const Merge& merge, absl::Span<const double> transitions, Combination& out) {
  double later = 1;
  out.base = 0;
  for (size_t k = transitions.size(); k-- > 0;) {
    out.factor[k] = merge.weights[k] * later;
    out.base -= out.factor[k] * transitions[k];
    later *= transitions[k];
  }
  out.base += later;
}

void CombineInAnyOrder(const Merge& merge, absl::Span<const double> transitions,
                       MergeWeights& weights, Combination& out) {
  weights.Compute(transitions, absl::MakeSpan(out.factor));
  double sum = 0;
  out.base = 1;
  for (size_t k = 0; k < transitions.size(); ++k) {
    sum += out.factor[k];
    out.base *= transitions[k];
  }
  const double scale = merge.norm == MergeNorm::kWeights ? 1 / sum : 1;
  for (size_t k = 0; k < transitions.size(); ++k) {
    out.factor[k] *= merge.weights[k] * scale;
    out.base -= out.factor[k] * transitions[k];
  }
}

void Combine(const Merge& merge, absl::Span<const double> transitions, MergeWeights& weights,
             Combination& out) {
  if (merge.method == MergeMethod::kOrdered) return CombineInOrder(merge, transitions, out);
  if (merge.method == MergeMethod::kCompose) {
    return CombineInAnyOrder(merge, transitions, weights, out);
  }
  for (size_t k = 0; k < out.factor.size(); ++k) {
    out.factor[k] = merge.weights[k] / merge.weight_sum;
  }
}

// The recurrent tensor of one layer while it is merged. Elements of one group (head or channel) are
// contiguous; they decay alike, or each by its index in the last dimension, of num_rates.
struct Recurrent {
  RecurrentDecay decay;
  StateDType dtype = StateDType::kFloat32;
  std::vector<const char*> in;
  const char* old;  // null: zeros
  char* out;
  std::vector<std::vector<double>> t;
  std::vector<double> old_t;
  // By rate: the factors of S_O and, one input after the other, of each S_k.
  std::vector<double> base, factors;
  // Elements at a time, small enough for the nearest cache. A payload keeps no alignment.
  std::vector<float> part;
  std::vector<double> sum;

  int64_t num_rates() const { return decay.num_rates; }
  int64_t BytesOf(int64_t elements) const {
    return elements * static_cast<int64_t>(StateDTypeBytes(dtype));
  }
};

void AddScaled(const char* from, absl::Span<const double> factors, int64_t count,
               Recurrent& layer) {
  float* const in = layer.part.data();
  double* const sum = layer.sum.data();
  LoadFloats(from, layer.dtype, count, in);
  if (factors.size() == 1) {
    const double factor = factors[0];
    for (int64_t i = 0; i < count; ++i) sum[i] += factor * in[i];
    return;
  }
  const int64_t rates = static_cast<int64_t>(factors.size());
  for (int64_t at = 0; at < count; at += rates) {
    for (int64_t r = 0; r < rates; ++r) sum[at + r] += factors[r] * in[at + r];
  }
}

// Of a group that begins at `from`.
double Norm(const char* from, const Recurrent& layer) {
  double sum = 0;
  for (int64_t i = 0; i < layer.decay.size; ++i) {
    float value;
    LoadFloats(from + layer.BytesOf(i), layer.dtype, 1, &value);
    sum += double{value} * value;
  }
  return std::sqrt(sum);
}

// A group, whose bytes begin at `offset` in the tensor, to the mean norm that it has in the inputs.
void ScaleToInputs(const Merge& merge, int64_t offset, const Recurrent& layer) {
  double wanted = 0;
  for (size_t k = 0; k < layer.in.size(); ++k) {
    wanted += merge.weights[k] * Norm(layer.in[k] + offset, layer);
  }
  char* const group = layer.out + offset;
  const double norm = Norm(group, layer);
  if (norm == 0) return;
  const auto scale = static_cast<float>(wanted / merge.weight_sum / norm);
  for (int64_t i = 0; i < layer.decay.size; ++i) {
    float value;
    LoadFloats(group + layer.BytesOf(i), layer.dtype, 1, &value);
    value *= scale;
    StoreFloats(&value, layer.dtype, 1, group + layer.BytesOf(i));
  }
}

void FindFactors(const Merge& merge, int64_t group, MergeWeights& weights, Combination& with,
                 Recurrent& layer) {
  const float* rates = layer.decay.rates + group * layer.num_rates();
  std::vector<double> transitions(layer.in.size());
  for (int64_t r = 0; r < layer.num_rates(); ++r) {
    for (size_t k = 0; k < transitions.size(); ++k) {
      transitions[k] = std::exp(rates[r] * (layer.t[k][group] - layer.old_t[group]));
    }
    Combine(merge, transitions, weights, with);
    layer.base[r] = with.base;
    for (size_t k = 0; k < transitions.size(); ++k) {
      layer.factors[k * layer.num_rates() + r] = with.factor[k];
    }
  }
}

void MergeGroup(const Merge& merge, int64_t group, Recurrent& layer) {
  const int64_t size = layer.decay.size, step = static_cast<int64_t>(layer.sum.size());
  const absl::Span<const double> factors = layer.factors;
  for (int64_t at = 0; at < size; at += step) {
    const int64_t count = std::min(step, size - at);
    const int64_t offset = layer.BytesOf(group * size + at);
    std::fill_n(layer.sum.begin(), count, 0.0);
    if (layer.old != nullptr) AddScaled(layer.old + offset, layer.base, count, layer);
    for (size_t k = 0; k < layer.in.size(); ++k) {
      AddScaled(layer.in[k] + offset, factors.subspan(k * layer.num_rates(), layer.num_rates()),
                count, layer);
    }
    std::copy_n(layer.sum.begin(), count, layer.part.begin());
    StoreFloats(layer.part.data(), layer.dtype, count, layer.out + offset);
  }
  if (merge.norm == MergeNorm::kInputs) {
    ScaleToInputs(merge, layer.BytesOf(group * size), layer);
  }
}

absl::Status MergeRecurrent(Merge& merge, const StateSegment& segment) {
  constexpr int64_t kElements = 1024;
  Recurrent layer;
  ANABRANCH_ASSIGN_OR_RETURN(layer.decay, DecayOf(merge.layout, merge.merged.header, segment));
  layer.dtype = segment.dtype;
  for (const StateImage* input : merge.inputs) {
    layer.in.push_back(input->payload.data() + segment.offset);
  }
  layer.old = merge.ancestor ? merge.ancestor->payload.data() + segment.offset : nullptr;
  layer.out = merge.merged.payload.data() + segment.offset;
  layer.t = ReadAll<double>(merge, layer.decay.t);
  layer.old_t = ReadSegment<double>(merge.ancestor, layer.decay.t);
  const int64_t rates = layer.num_rates();
  layer.base.resize(rates);
  layer.factors.resize(rates * merge.inputs.size());
  layer.sum.resize(std::max<int64_t>(kElements / rates, 1) * rates);
  layer.part.resize(layer.sum.size());
  MergeWeights weights(static_cast<int>(merge.inputs.size()));
  Combination with;
  with.factor.resize(merge.inputs.size());
  for (int64_t g = 0; g < layer.decay.groups; ++g) {
    FindFactors(merge, g, weights, with, layer);
    MergeGroup(merge, g, layer);
  }
  return absl::OkStatus();
}

absl::Status MergeSegment(Merge& merge, const StateSegment& segment) {
  if (segment.kind == StateKind::kCumulative) {
    MergeCumulative(merge, segment);
    return absl::OkStatus();
  }
  if (segment.kind == StateKind::kRecurrent && segment.layer != kLastLogitsLayer) {
    return MergeRecurrent(merge, segment);
  }
  MergeNumbers(merge, segment);
  return absl::OkStatus();
}

// Each segment is written by one thread, from inputs that nobody writes: the bytes do not depend on
// how many threads there are.
absl::Status MergePayload(Merge& merge) {
  const std::vector<StateSegment>& segments = merge.merged.header.segments;
  std::vector<absl::Status> statuses(segments.size());
  ForEachOnHost(merge.merged.payload.size() * merge.inputs.size(), segments.size(),
                [&](size_t i) { statuses[i] = MergeSegment(merge, segments[i]); });
  for (const absl::Status& status : statuses) ANABRANCH_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

absl::Status CheckOptions(const MergeOptions& options, size_t inputs) {
  if (inputs == 0) return absl::InvalidArgumentError("there is nothing to merge");
  if (!options.weights.empty() && options.weights.size() != inputs) {
    return absl::InvalidArgumentError(
        absl::StrCat("weights has ", options.weights.size(), " entries for ", inputs, " inputs"));
  }
  for (double weight : options.weights) {
    if (!(weight > 0) || !std::isfinite(weight)) {
      return absl::InvalidArgumentError(
          absl::StrCat("weights holds ", weight, "; all must be > 0"));
    }
  }
  return absl::OkStatus();
}

// What each input added; unknown if it is unknown for one.
void MergeInnerSum(Merge& merge) {
  std::vector<float> sum(merge.inputs.front()->header.inner_sum.size(), 0);
  const std::vector<float>* old = merge.ancestor ? &merge.ancestor->header.inner_sum : nullptr;
  if (old != nullptr) sum = *old;
  for (const StateImage* input : merge.inputs) {
    const std::vector<float>& each = input->header.inner_sum;
    if (each.size() != sum.size()) sum.clear();
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += each[i] - (old == nullptr ? 0 : (*old)[i]);
    }
  }
  merge.merged.header.inner_sum = std::move(sum);
}

// Whether the input is where the ancestor is, in tokens and in time (it may have aged).
bool AddsNothing(const StateImage& input, const StateImage* ancestor) {
  if (input.header.token_count != (ancestor ? ancestor->header.token_count : 0)) return false;
  for (const StateSegment& segment : input.header.segments) {
    if (segment.kind == StateKind::kCumulative &&
        ReadSegment<double>(input, segment) != ReadSegment<double>(ancestor, segment)) {
      return false;
    }
  }
  return true;
}

// The inputs that have a say, with their weights: those that added something, or all if none did.
void KeepWhatAdds(absl::Span<const StateImage* const> inputs, const MergeOptions& options,
                  const StateImage* ancestor, std::vector<const StateImage*>& kept,
                  std::vector<double>& weights) {
  for (const bool all : {false, true}) {
    for (size_t k = 0; k < inputs.size(); ++k) {
      if (!all && AddsNothing(*inputs[k], ancestor)) continue;
      kept.push_back(inputs[k]);
      weights.push_back(options.weights.empty() ? 1 : options.weights[k]);
    }
    if (!kept.empty()) return;
  }
}

// The result's header, and a payload of its size: as the first input's, without last logits unless
// all inputs have them.
void Prepare(Merge& merge) {
  const StateImage& first = *merge.inputs.front();
  StateHeader& header = merge.merged.header;
  header = first.header;
  header.kv_blocks.clear();
  const int64_t old = merge.ancestor ? merge.ancestor->header.token_count : 0;
  header.token_count = old;
  bool logits = true;
  for (const StateImage* input : merge.inputs) {
    header.token_count += input->header.token_count - old;
    logits &= input->header.vocab > 0;
  }
  if (!logits && header.vocab > 0) {
    header.vocab = 0;
    header.segments.pop_back();
  }
  MergeInnerSum(merge);
  const uint64_t bytes =
      header.segments.empty() ? 0 : header.segments.back().offset + header.segments.back().bytes;
  merge.merged.payload = std::string(bytes, '\0');
}

}  // namespace

absl::StatusOr<StateImage> MergeStates(const StateLayout& layout,
                                       absl::Span<const StateImage* const> inputs,
                                       const StateImage* ancestor, const MergeOptions& options) {
  ANABRANCH_RETURN_IF_ERROR(CheckOptions(options, inputs.size()));
  std::vector<const StateImage*> kept;
  std::vector<double> weights;
  KeepWhatAdds(inputs, options, ancestor, kept, weights);
  Merge merge{layout, kept, ancestor, options.method, options.norm, weights, 0, {}};
  for (double weight : merge.weights) merge.weight_sum += weight;
  Prepare(merge);
  ANABRANCH_RETURN_IF_ERROR(MergePayload(merge));
  if (layout.has_kv()) merge.merged.kv_blocks = ConcatenateKv(layout, kept, ancestor);
  ANABRANCH_RETURN_IF_ERROR(SealState(layout, merge.merged));
  return std::move(merge.merged);
}

}  // namespace anabranch
