// Attention of many rows in bfloat16, on tensor cores (attention.cu chooses).
#pragma once

#include "absl/status/status.h"
#include "kernels/attention.h"

namespace anabranch::kernels::cuda {

// Whether PrefillAttention can do it: queries, keys and values in bfloat16, everything aligned to
// 16 bytes, head_dim a multiple of 8 up to 256, and pages of a multiple of 64 tokens.
bool FitsPrefillAttention(const AttentionParams& params);

// The part of Attention() after new keys and values are in their pages. Probabilities are rounded
// to bfloat16 before the product with the values. A value that is not finite may also show in rows
// up to 63 before its own.
absl::Status PrefillAttention(const AttentionParams& params, const Launch& launch);

}  // namespace anabranch::kernels::cuda
