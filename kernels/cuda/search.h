// The exact scan of search: all embeddings against a few queries, and the best of them.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/launch.h"

namespace anabranch::kernels::cuda {

enum class EmbeddingDType : uint8_t { kFloat32, kBFloat16, kFloat16 };

inline constexpr int32_t kMaxSearchResults = 1024;

struct SearchParams {
  const float* queries = nullptr;  // [num_queries, width]
  int32_t num_queries = 0;
  const void* embeddings = nullptr;  // [count, width] of `dtype`; rows aligned to 16 bytes
  EmbeddingDType dtype = EmbeddingDType::kFloat32;
  int64_t count = 0;       // below 2^32
  int64_t width = 0;       // a multiple of 8
  int64_t row_stride = 0;  // elements between embeddings
  // A score is query . (embedding - mean), summed in float32. Null: no mean.
  const float* mean = nullptr;
  // What may be found: bit i % 32 of word i / 32. Null: everything.
  const uint32_t* wanted = nullptr;
  int32_t limit = 0;         // results of a query, 1 .. kMaxSearchResults
  float* scores = nullptr;   // [num_queries, limit], best first; equal scores: lower index first
  int64_t* index = nullptr;  // [num_queries, limit]; -1 where fewer were found. NaN is never found
};
absl::Status Search(const SearchParams& params, const Launch& launch);

}  // namespace anabranch::kernels::cuda
