// Embeddings of one model and tenant in one flat array, scanned exactly. The mean of all is taken
// off before two are compared: what all states have in common says nothing about any.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/types/span.h"

namespace anabranch {

class EmbeddingTable {
 public:
  // Adds or replaces. An embedding of another width than the first is ignored: there is none of the
  // same model.
  void Put(int64_t key, absl::Span<const float> embedding);
  void Remove(int64_t key);

  // (cosine, key) of those that `wanted` takes, best first, at most `limit`. Embeddings are of
  // length 1.
  std::vector<std::pair<float, int64_t>> Nearest(absl::Span<const float> query, size_t limit,
                                                 absl::FunctionRef<bool(int64_t)> wanted) const;

 private:
  std::vector<float> rows_;  // [keys, width]
  std::vector<int64_t> keys_;
  absl::flat_hash_map<int64_t, size_t> row_of_;
  std::vector<double> sum_;  // of all rows
};

}  // namespace anabranch
