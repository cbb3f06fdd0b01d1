#include "runtime/state_merge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/merge_kv.h"
#include "runtime/merge_recurrent.h"
#include "runtime/state_table.h"
#include "runtime/state_tensors.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// The inputs and where the result goes. Segments of all images lie at the same offsets, except for
// last logits that are missing.
struct Merge {
  const StateLayout& layout;
  absl::Span<const StateImage* const> inputs;
  const StateImage* ancestor;
  MergeOptions options;  // with a weight for each input
  double weight_sum = 0;
  StateImage merged;
};

template <typename T>
std::vector<std::vector<T>> ReadAll(const Merge& merge, const StateSegment& segment) {
  std::vector<std::vector<T>> all;
  for (const StateImage* input : merge.inputs) all.push_back(ReadSegment<T>(*input, segment));
  return all;
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

// Windows and last logits, input after input: each is read once, from one end to the other.
void MergeNumbers(Merge& merge, const StateSegment& segment) {
  if (merge.options.method == MergeMethod::kOrdered) return MergeInOrder(merge, segment);
  std::vector<double> sum(CountOf(segment));
  for (size_t k = 0; k < merge.inputs.size(); ++k) {
    const std::vector<float> in = ReadFloats(*merge.inputs[k], segment);
    const double weight = merge.options.weights[k];
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += weight * in[i];
  }
  for (double& each : sum) each /= merge.weight_sum;
  WriteFloats(std::vector<float>(sum.begin(), sum.end()), segment, merge.merged);
}

void MergeCumulative(Merge& merge, const StateSegment& segment) {
  const std::vector<std::vector<double>> in = ReadAll<double>(merge, segment);
  const std::vector<double> old = ReadSegment<double>(merge.ancestor, segment);
  const bool mean = merge.options.method == MergeMethod::kMean;
  std::vector<double> out(old.size());
  for (size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    for (size_t k = 0; k < in.size(); ++k) {
      sum += mean ? merge.options.weights[k] * in[k][i] : in[k][i] - old[i];
    }
    out[i] = mean ? sum / merge.weight_sum : old[i] + sum;
  }
  WriteSegment(out, segment, merge.merged);
}

absl::Status MergeRecurrent(Merge& merge, const StateSegment& segment) {
  RecurrentLayer layer;
  ANABRANCH_ASSIGN_OR_RETURN(layer.decay, DecayOf(merge.layout, merge.merged.header, segment));
  // An int8 tensor is merged as float32: scales lie apart from codes.
  const bool widens = segment.dtype == StateDType::kInt8;
  std::vector<std::vector<float>> wide;
  wide.reserve(merge.inputs.size() + 1);
  const auto in_place = [&](const StateImage& image) {
    if (!widens) return image.payload.data() + segment.offset;
    return reinterpret_cast<const char*>(wide.emplace_back(ReadFloats(image, segment)).data());
  };
  layer.dtype = widens ? StateDType::kFloat32 : segment.dtype;
  for (const StateImage* input : merge.inputs) layer.in.push_back(in_place(*input));
  layer.old = merge.ancestor ? in_place(*merge.ancestor) : nullptr;
  std::vector<float> merged(widens ? CountOf(segment) : 0);
  layer.out = widens ? reinterpret_cast<char*>(merged.data())
                     : merge.merged.payload.data() + segment.offset;
  layer.t = ReadAll<double>(merge, layer.decay.t);
  layer.old_t = ReadSegment<double>(merge.ancestor, layer.decay.t);
  MergeRecurrent(merge.options, layer);
  if (widens) WriteFloats(merged, segment, merge.merged);
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
// all inputs have them. The payload is a string because a library takes one: a block, which nobody
// has to fill with zeros, would be copied to one.
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
  Merge merge{layout, kept, ancestor, {options.method, options.norm, weights}, 0, {}};
  for (double weight : weights) merge.weight_sum += weight;
  Prepare(merge);
  ANABRANCH_RETURN_IF_ERROR(MergePayload(merge));
  if (layout.has_kv()) merge.merged.kv_blocks = ConcatenateKv(layout, kept, ancestor);
  ANABRANCH_RETURN_IF_ERROR(SealState(layout, merge.merged));
  return std::move(merge.merged);
}

}  // namespace anabranch
