#include "runtime/state_algebra.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/merge_kv.h"
#include "runtime/state_table.h"
#include "runtime/state_tensors.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

struct Term {
  const StateImage* image;
  double sign;
};

// S = sum of sign S_k, each aged to the time of the first term (and then by `aging` of that time).
// What is not recurrent comes from `last`; `earlier` holds the window that comes before the last
// `window_tokens` inputs.
struct Formula {
  const StateLayout& layout;
  std::vector<Term> terms;
  double aging = 0;
  bool from_zero = false;  // T is what the terms add, not the time of the first one
  const StateImage* logits = nullptr;
  const StateImage* earlier = nullptr;
  int64_t window_tokens = 0;
  StateImage out = {};

  const StateImage& last() const { return *terms.front().image; }
  std::vector<double> Time(const StateSegment& t) const {
    std::vector<double> time = ReadSegment<double>(last(), t);
    for (double& each : time) each *= 1 + aging;
    return time;
  }
};

void ComputeTime(Formula& formula, const StateSegment& segment) {
  std::vector<double> time = formula.Time(segment);
  if (formula.from_zero) {
    for (size_t k = 1; k < formula.terms.size(); ++k) {
      const std::vector<double> old = ReadSegment<double>(*formula.terms[k].image, segment);
      for (size_t i = 0; i < time.size(); ++i) time[i] += formula.terms[k].sign * old[i];
    }
  }
  WriteSegment(time, segment, formula.out);
}

absl::Status ComputeRecurrent(Formula& formula, const StateSegment& segment) {
  ANABRANCH_ASSIGN_OR_RETURN(const RecurrentDecay decay,
                             DecayOf(formula.layout, formula.out.header, segment));
  const std::vector<double> now = formula.Time(decay.t);
  std::vector<double> sum(CountOf(segment));
  for (const Term& term : formula.terms) {
    const std::vector<float> in = ReadFloats(*term.image, segment);
    const std::vector<double> then = ReadSegment<double>(*term.image, decay.t);
    for (int64_t g = 0; g < decay.groups; ++g) {
      for (int64_t r = 0; r < decay.num_rates; ++r) {
        const double rate = decay.rates[g * decay.num_rates + r];
        const double factor = term.sign * std::exp(rate * (now[g] - then[g]));
        for (int64_t i = g * decay.size + r; i < (g + 1) * decay.size; i += decay.num_rates) {
          sum[i] += factor * in[i];
        }
      }
    }
  }
  WriteFloats(std::vector<float>(sum.begin(), sum.end()), segment, formula.out);
  return absl::OkStatus();
}

// [inputs, channels], oldest first: the last inputs of `earlier` and then those of `last`.
void ShiftWindow(Formula& formula, const StateSegment& segment) {
  const int64_t width = segment.shape.front();
  const size_t row = segment.bytes / width;
  const int64_t fresh = std::min(width, formula.window_tokens);
  const auto part = [&](const StateImage& image) { return image.payload.data() + segment.offset; };
  char* to = formula.out.payload.data() + segment.offset;
  if (formula.earlier != nullptr) {
    std::memcpy(to, part(*formula.earlier) + fresh * row, (width - fresh) * row);
  }
  std::memcpy(to + (width - fresh) * row, part(formula.last()) + (width - fresh) * row,
              fresh * row);
}

// Of the tokens that are left; unknown if it is unknown for one state.
void SumInner(Formula& formula) {
  std::vector<float>& sum = formula.out.header.inner_sum;
  for (size_t k = 1; k < formula.terms.size(); ++k) {
    const std::vector<float>& more = formula.terms[k].image->header.inner_sum;
    if (more.size() != sum.size()) sum.clear();
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += static_cast<float>(formula.terms[k].sign) * more[i];
    }
  }
}

// As the last state's, with the logits of `logits`, if it has any.
void Prepare(Formula& formula) {
  StateHeader& header = formula.out.header;
  header = formula.last().header;
  header.kv_blocks.clear();
  if (header.vocab > 0) header.segments.pop_back();
  const uint64_t bytes =
      header.segments.empty() ? 0 : header.segments.back().offset + header.segments.back().bytes;
  formula.out.payload = std::string(bytes, '\0');
  header.vocab = formula.logits->header.vocab;
  if (header.vocab == 0) return;
  const StateSegment& segment = formula.logits->header.segments.back();
  formula.out.payload.text().append(formula.logits->payload.data() + segment.offset, segment.bytes);
}

absl::StatusOr<StateImage> Compute(Formula formula, std::vector<KvRange> kv) {
  Prepare(formula);
  SumInner(formula);
  for (const StateSegment& segment : formula.out.header.segments) {
    if (segment.kind == StateKind::kCumulative) {
      ComputeTime(formula, segment);
    } else if (segment.kind == StateKind::kRecurrent) {
      ANABRANCH_RETURN_IF_ERROR(ComputeRecurrent(formula, segment));
    } else {
      ShiftWindow(formula, segment);
    }
  }
  formula.out.header.token_count = 0;
  for (const KvRange& range : kv) formula.out.header.token_count += range.count;
  if (formula.layout.has_kv()) formula.out.kv_blocks = GatherKv(formula.layout, kv);
  ANABRANCH_RETURN_IF_ERROR(SealState(formula.layout, formula.out));
  return std::move(formula.out);
}

int64_t Tokens(const StateImage* image) { return image == nullptr ? 0 : image->header.token_count; }

absl::Status CheckOrder(const char* names, int64_t earlier, int64_t later, bool may_be_equal) {
  if (earlier < later || (may_be_equal && earlier == later)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(names, ": ", later, " tokens do not go on from ", earlier));
}

}  // namespace

absl::StatusOr<StateImage> SpanState(const StateLayout& layout, const StateImage* begin,
                                     const StateImage& end) {
  const int64_t before = Tokens(begin), count = Tokens(&end) - before;
  ANABRANCH_RETURN_IF_ERROR(CheckOrder("begin and end", before, Tokens(&end), false));
  Formula formula{layout, {{&end, 1}}};
  if (begin != nullptr) formula.terms.push_back({begin, -1});
  formula.from_zero = true;
  formula.logits = &end;
  formula.window_tokens = count;
  return Compute(std::move(formula), {{&end, before, count}});
}

absl::StatusOr<StateImage> ForgetSpan(const StateLayout& layout, const StateImage* begin,
                                      const StateImage& span_end, const StateImage& end) {
  const int64_t before = Tokens(begin), cut = Tokens(&span_end), rest = Tokens(&end) - cut;
  ANABRANCH_RETURN_IF_ERROR(CheckOrder("begin and span_end", before, cut, false));
  ANABRANCH_RETURN_IF_ERROR(CheckOrder("span_end and end", cut, Tokens(&end), true));
  if (before + rest == 0) return absl::InvalidArgumentError("nothing would be left");
  Formula formula{layout, {{&end, 1}, {&span_end, -1}}};
  if (begin != nullptr) formula.terms.push_back({begin, 1});
  formula.logits = rest > 0 ? &end : begin;
  formula.earlier = begin;
  formula.window_tokens = rest;
  return Compute(std::move(formula), {{&end, 0, before}, {&end, cut, rest}});
}

absl::StatusOr<StateImage> DecayState(const StateLayout& layout, const StateImage& state,
                                      double ratio) {
  if (!(ratio >= 0) || !std::isfinite(ratio)) {
    return absl::InvalidArgumentError(absl::StrCat("ratio is ", ratio, ", must be at least 0"));
  }
  const int64_t count = Tokens(&state);
  Formula formula{layout, {{&state, 1}}};
  formula.aging = ratio;
  formula.logits = formula.earlier = &state;
  return Compute(std::move(formula), {{&state, 0, count}});
}

}  // namespace anabranch
