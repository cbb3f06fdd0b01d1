// Packs the rows of several sequences into the arrays of a StepBatch.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/model.h"
#include "runtime/slot_pool.h"

namespace anabranch {

class StepRows {
 public:
  explicit StepRows(bool has_kv) : has_kv_(has_kv) { Clear(); }

  void Clear();
  // `ref` was prepared for the tokens. Logits are wanted for every row or only for the last, after
  // which a token may be drawn by `rule`. `inner_sum`: see StepBatch; may be null.
  void Add(const SlotRef& ref, absl::Span<const int32_t> tokens, bool all_logits,
           const kernels::RowSampling& rule, float* inner_sum);

  bool empty() const { return slots_.empty(); }
  int64_t num_rows() const { return static_cast<int64_t>(tokens_.size()); }
  size_t num_logit_rows() const { return logit_rows_.size(); }
  // Valid until the next change.
  StepBatch batch() const;
  absl::Span<const int32_t> tokens(size_t sequence) const;
  // Which of the logit rows are of sequence `sequence`: at least one.
  struct Range {
    int64_t first = 0, count = 0;
    int64_t last() const { return first + count - 1; }
  };
  Range logit_rows(size_t sequence) const;

 private:
  const bool has_kv_;
  std::vector<int32_t> tokens_, row_start_, slots_, pages_, page_start_, logit_rows_, logit_start_;
  std::vector<int64_t> positions_;
  std::vector<kernels::RowSampling> rules_;  // by logit row
  std::vector<float*> inner_sums_;
};

}  // namespace anabranch
