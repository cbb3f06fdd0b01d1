// Chooses the next token from logits. Order of steps: repetition penalty, then (temperature 0:
// greedy) temperature, top-k, top-p, min-p, draw. Deterministic for a given seed and position: the
// random number is a hash of (seed, position), so a resumed generation draws the same tokens.
// Logits that are not finite (NaN, infinities) count as probability 0 and are never chosen; if no
// logit is finite, token 0 is returned with log-probability -infinity.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/sample.h"

namespace anabranch {

struct SamplingParams {
  float temperature = 0;  // 0: greedy (ties: lowest id). Otherwise > 0, at most 10
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // (0, 1]; 1: off
  float min_p = 0;        // [0, 1): keep tokens with at least min_p of the best one's probability
  float repetition_penalty = 1;  // >= 1 divides positive, multiplies negative logits of seen tokens
  uint64_t seed = 0;
  int32_t top_logprobs = 0;  // 0..20: also report the best tokens with their log-probabilities
};

// INVALID_ARGUMENT names the field and its range.
absl::Status ValidateSamplingParams(const SamplingParams& params);

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural log of the model's own probability, before any sampling rule
};

struct SampledToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // best first, params.top_logprobs of them
};

// `logits` [vocab]; ids >= valid_vocab (padding rows of the matrix) are never chosen. `seen` are
// the tokens the repetition penalty applies to. `position` is the index the token will have.
SampledToken SampleToken(absl::Span<const float> logits, int32_t valid_vocab,
                         const SamplingParams& params, absl::Span<const int32_t> seen,
                         int64_t position);

// Whether all that is wanted can be said by a rule: no repetition penalty, no list of best tokens.
bool DrawsByRule(const SamplingParams& params);
// How the token of `position` is drawn.
kernels::RowSampling RuleAt(const SamplingParams& params, int64_t position);
// What SampleToken does with params that the rule was made of.
int32_t DrawByRule(absl::Span<const float> logits, int32_t valid_vocab,
                   const kernels::RowSampling& rule);

// Log-probability of `token` under softmax(logits); -infinity if it is outside of them.
float TokenLogprobOf(absl::Span<const float> logits, int32_t token);

}  // namespace anabranch
