// Choosing the next tokens where the logits are, by the rules of runtime/sampler.h: greedy, or
// temperature, then top-k, top-p and min-p, then a draw. Repetition penalties are not applied here.
// For devices whose memory the host does not see; elsewhere runtime/sampler.h itself is used.
#pragma once

#include <cstdint>

#include "kernels/launch.h"

namespace anabranch::kernels {

// Of one row, in device memory: a graph that is replayed reads what stands there then.
struct RowSampling {
  float temperature = 0;  // 0: greedy
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off
  float min_p = 0;        // 0: off
  double uniform = 0;     // [0, 1): what decides the draw
};

// With top_k or top_p the best so many are looked at; see SampleParams::token.
inline constexpr int32_t kMaxCandidates = 4096;

struct SampleParams {
  int64_t rows = 0;
  ConstActs logits;  // [rows, vocab]
  int64_t logits_stride = 0;
  int32_t vocab = 0;
  int32_t valid_vocab = 0;             // ids from here on are never chosen
  const RowSampling* rules = nullptr;  // [rows]; null: all greedy
  // [rows]. As SampleToken: 0 if no logit is finite, the lower id of equals. -1 where top_k or
  // top_p leaves more candidates than kMaxCandidates: then the host has to sample the row.
  int32_t* token = nullptr;
  // [rows] or null: of the token under softmax(logits), all vocab of them.
  float* logprob = nullptr;
  int32_t* finite = nullptr;  // [rows] or null: 1 if all vocab logits are finite, else 0
};

}  // namespace anabranch::kernels
