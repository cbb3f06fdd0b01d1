// What the kernels that look at a row of logits share. Only .cu files include it.
//
// A row is looked at by kRowParts blocks (sample_parts.cu): what they find is put together by
// whoever draws from it (sample.cu), in one fixed order.
#pragma once

#include <limits>

#include "kernels/cuda/device.h"
#include "kernels/sample.h"

namespace anabranch::kernels::cuda {

inline constexpr int kRowParts = 16;
inline constexpr float kLowestLogit = -std::numeric_limits<float>::infinity();

struct Best {
  float logit;
  int32_t token;  // -1: none
};

// The lower id of equals.
__device__ inline Best Better(const Best& a, const Best& b) {
  if (b.token < 0) return a;
  if (a.token < 0) return b;
  if (a.logit != b.logit) return a.logit > b.logit ? a : b;
  return a.token < b.token ? a : b;
}

__device__ inline float Weight(float logit, float best, float temperature) {
  return isfinite(logit) ? expf((logit - best) / temperature) : 0;
}

// Of some ids of a row: finite logits only, but for `finite`.
struct RowPart {
  Best valid, all;  // of those that may be drawn; of all
  double sum;       // of exp(logit - all.logit)
  int32_t finite;   // whether all logits are
};

// parts: [rows, kRowParts].
absl::Status FindRowParts(const SampleParams& params, RowPart* parts, const Launch& launch);

// All parts of a row as one. Sums are brought to the row's best logit.
__device__ inline RowPart JoinRowParts(const RowPart* parts) {
  RowPart row = parts[0];
#pragma unroll
  for (int i = 1; i < kRowParts; ++i) {
    row.valid = Better(row.valid, parts[i].valid);
    row.all = Better(row.all, parts[i].all);
    row.finite = row.finite & parts[i].finite;
  }
  row.sum = 0;
#pragma unroll
  for (int i = 0; i < kRowParts; ++i) {
    if (parts[i].all.token < 0) continue;
    row.sum += parts[i].sum * static_cast<double>(expf(parts[i].all.logit - row.all.logit));
  }
  return row;
}

}  // namespace anabranch::kernels::cuda
