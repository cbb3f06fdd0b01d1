#include "runtime/sampler.h"

#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/softmax_weights.h"

namespace anabranch {
namespace {

constexpr float kMaxTemperature = 10;
constexpr int32_t kMaxTopLogprobs = 20;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// A token that may be drawn, with exp((logit - best) / temperature).
struct Candidate {
  float logit = 0;
  int32_t token = 0;
  float weight = 0;
};

bool IsBetter(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// The first `count` candidates become the best ones, in order. A heap of a few looks at each of the
// others once; for many, dividing them is faster.
void SortBest(std::vector<Candidate>* candidates, size_t count) {
  const auto middle = candidates->begin() + static_cast<ptrdiff_t>(count);
  if (count < candidates->size() / 64) {
    std::partial_sort(candidates->begin(), middle, candidates->end(), IsBetter);
    return;
  }
  if (count < candidates->size()) {
    std::nth_element(candidates->begin(), middle, candidates->end(), IsBetter);
  }
  std::sort(candidates->begin(), middle, IsBetter);
}

double SumOfWeights(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += candidate.weight;
  return sum;
}

// Log of the sum of exp(logits); -infinity if none is finite.
float LogSumExp(absl::Span<const float> logits) {
  const float best = LargestFinite(logits);
  if (best == kLowest) return kLowest;
  return best + static_cast<float>(std::log(SoftmaxWeights(logits, best, 1, nullptr)));
}

float LogprobOf(absl::Span<const float> logits, int32_t token, float log_sum) {
  if (token < 0 || static_cast<size_t>(token) >= logits.size()) return kLowest;
  const float logit = logits[static_cast<size_t>(token)];
  return std::isfinite(logit) ? logit - log_sum : kLowest;
}

std::vector<float> Penalized(absl::Span<const float> logits, float penalty,
                             absl::Span<const int32_t> seen) {
  std::vector<float> result(logits.begin(), logits.end());
  for (const int32_t token : seen) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    // From the original logit, so that a token seen twice is punished once.
    const float logit = logits[static_cast<size_t>(token)];
    result[static_cast<size_t>(token)] = logit > 0 ? logit / penalty : logit * penalty;
  }
  return result;
}

int32_t Greedy(absl::Span<const float> logits) {
  int32_t best = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) continue;
    if (best < 0 || logits[i] > logits[static_cast<size_t>(best)]) best = static_cast<int32_t>(i);
  }
  return std::max(best, 0);
}

// Those that may be chosen.
absl::Span<const float> Valid(absl::Span<const float> logits, int32_t valid_vocab) {
  return logits.subspan(0, std::min(logits.size(), static_cast<size_t>(std::max(valid_vocab, 0))));
}

// [0, 1), the same on every machine.
double UniformAt(uint64_t seed, int64_t position) {
  unsigned char bytes[16];
  for (int i = 0; i < 8; ++i) {
    bytes[i] = static_cast<unsigned char>(seed >> (8 * i));
    bytes[8 + i] = static_cast<unsigned char>(static_cast<uint64_t>(position) >> (8 * i));
  }
  return static_cast<double>(XXH3_64bits(bytes, sizeof(bytes)) >> 11) * 0x1p-53;
}

// Keeps the smallest prefix, best first, whose probability reaches `top_p`. Sorts only as far as it
// has to: the prefix is short for all but flat distributions.
void KeepTopP(float top_p, std::vector<Candidate>* candidates) {
  const double sum = SumOfWeights(*candidates);
  // All tokens below this together have less than half of 1 - top_p: the prefix ends before them.
  const double too_small =
      0.5 * (1.0 - double{top_p}) * sum / static_cast<double>(candidates->size());
  const auto is_weak = [&](const Candidate& c) { return c.weight < too_small; };
  candidates->erase(std::remove_if(candidates->begin(), candidates->end(), is_weak),
                    candidates->end());
  size_t sorted = 64;
  while (true) {
    sorted = std::min(sorted, candidates->size());
    SortBest(candidates, sorted);
    double prefix = 0;
    for (size_t i = 0; i < sorted; ++i) {
      prefix += (*candidates)[i].weight;
      if (prefix < top_p * sum) continue;
      candidates->resize(i + 1);
      return;
    }
    if (sorted == candidates->size()) return;
    sorted *= 8;
  }
}

// The tokens that may be drawn, by `rule`. A token whose weight is too small for a
// float is none.
std::vector<Candidate> Candidates(absl::Span<const float> logits,
                                  const kernels::RowSampling& rule) {
  const float best = LargestFinite(logits);
  std::vector<Candidate> candidates;
  if (best == kLowest) return candidates;
  std::vector<float> weights(logits.size());
  SoftmaxWeights(logits, best, rule.temperature, weights.data());
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (weights[i] > 0) candidates.push_back({logits[i], static_cast<int32_t>(i), weights[i]});
  }
  const auto top_k = static_cast<size_t>(rule.top_k);
  if (top_k > 0 && top_k < candidates.size()) {
    SortBest(&candidates, top_k);
    candidates.resize(top_k);
  }
  if (rule.top_p < 1) KeepTopP(rule.top_p, &candidates);
  if (rule.min_p > 0) {  // relative to the best one, whose weight is 1
    const auto is_weak = [&](const Candidate& c) { return c.weight < rule.min_p; };
    candidates.erase(std::remove_if(candidates.begin(), candidates.end(), is_weak),
                     candidates.end());
  }
  return candidates;
}

int32_t Draw(absl::Span<const float> logits, const kernels::RowSampling& rule) {
  if (rule.temperature == 0) return Greedy(logits);
  const std::vector<Candidate> candidates = Candidates(logits, rule);
  double left = rule.uniform * SumOfWeights(candidates);
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.token;
  }
  return candidates.empty() ? 0 : candidates.back().token;  // what rounding left over
}

std::vector<TokenLogprob> TopLogprobs(absl::Span<const float> logits, float log_sum,
                                      int32_t count) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isfinite(logits[i])) candidates.push_back({logits[i], static_cast<int32_t>(i), 0});
  }
  const size_t kept = std::min(candidates.size(), static_cast<size_t>(count));
  SortBest(&candidates, kept);
  std::vector<TokenLogprob> top;
  for (size_t i = 0; i < kept; ++i) {
    top.push_back({candidates[i].token, candidates[i].logit - log_sum});
  }
  return top;
}

}  // namespace

absl::Status ValidateSamplingParams(const SamplingParams& params) {
  const auto error = [](absl::string_view field, absl::string_view range, auto value) {
    return absl::InvalidArgumentError(absl::StrCat(field, " must be ", range, ", not ", value));
  };
  // Written so that NaN fails.
  if (!(params.temperature >= 0 && params.temperature <= kMaxTemperature)) {
    return error("temperature", "in [0, 10]", params.temperature);
  }
  if (params.top_k < 0) return error("top_k", "at least 0", params.top_k);
  if (!(params.top_p > 0 && params.top_p <= 1)) return error("top_p", "in (0, 1]", params.top_p);
  if (!(params.min_p >= 0 && params.min_p < 1)) return error("min_p", "in [0, 1)", params.min_p);
  if (!(params.repetition_penalty >= 1 && std::isfinite(params.repetition_penalty))) {
    return error("repetition_penalty", "finite and at least 1", params.repetition_penalty);
  }
  if (params.top_logprobs < 0 || params.top_logprobs > kMaxTopLogprobs) {
    return error("top_logprobs", "in [0, 20]", params.top_logprobs);
  }
  return absl::OkStatus();
}

bool DrawsByRule(const SamplingParams& params) {
  return params.repetition_penalty == 1 && params.top_logprobs == 0;
}

kernels::RowSampling RuleAt(const SamplingParams& params, int64_t position) {
  kernels::RowSampling rule;
  if (params.temperature == 0) return rule;
  rule.temperature = params.temperature;
  rule.top_k = params.top_k;
  rule.top_p = params.top_p;
  rule.min_p = params.min_p;
  rule.uniform = UniformAt(params.seed, position);
  return rule;
}

int32_t DrawByRule(absl::Span<const float> logits, int32_t valid_vocab,
                   const kernels::RowSampling& rule) {
  return Draw(Valid(logits, valid_vocab), rule);
}

SampledToken SampleToken(absl::Span<const float> logits, int32_t valid_vocab,
                         const SamplingParams& params, absl::Span<const int32_t> seen,
                         int64_t position) {
  const absl::Span<const float> valid = Valid(logits, valid_vocab);
  std::vector<float> penalized;
  absl::Span<const float> rated = valid;
  if (params.repetition_penalty != 1 && !seen.empty()) {
    penalized = Penalized(valid, params.repetition_penalty, seen);
    rated = penalized;
  }
  const float log_sum = LogSumExp(logits);
  SampledToken sampled;
  sampled.token = Draw(rated, RuleAt(params, position));
  sampled.logprob = LogprobOf(logits, sampled.token, log_sum);
  if (params.top_logprobs > 0) sampled.top = TopLogprobs(valid, log_sum, params.top_logprobs);
  return sampled;
}

float TokenLogprobOf(absl::Span<const float> logits, int32_t token) {
  return LogprobOf(logits, token, LogSumExp(logits));
}

}  // namespace anabranch
