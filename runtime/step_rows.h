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
  // Of a model whose states have this layout. Checkpoints go to places of `checkpoint_ring`, which
  // outlives this.
  StepRows(const StateLayout& layout, const StateArrays* checkpoint_ring)
      : has_kv_(layout.has_kv()),
        packs_from_(layout.packs_from()),
        checkpoint_ring_(checkpoint_ring) {
    Clear();
  }

  void Clear();
  // `ref` was prepared for the tokens. Logits are wanted for every row or only for the last, after
  // which a token may be drawn by `rule`. `inner_sum`: see StepBatch; may be null.
  void Add(const SlotRef& ref, absl::Span<const int32_t> tokens, bool all_logits,
           const kernels::RowSampling& rule, float* inner_sum);
  // The sequence added last, of one row, defers: ref.pending tokens are beside its state, and
  // `after` then.
  void Defer(const SlotRef& ref, int32_t after);
  // The state of the sequence added last is kept in `place` after `tokens` of its tokens, more than
  // at the checkpoint before; `inner_sum` (may be null) gets its sum. That row has logits, too: its
  // rows of logits are those of its checkpoints, in order, and then the last one. Whether recurrent
  // tensors will go there packed (StepBatch::checkpoint_packed), which only `compact` allows.
  bool AddCheckpoint(int64_t tokens, int32_t place, bool compact, float* inner_sum);

  // Told how far the step has come; null: nobody asks.
  void set_progress(StepProgress* progress) { progress_ = progress; }

  bool empty() const { return slots_.empty(); }
  int64_t num_rows() const { return static_cast<int64_t>(tokens_.size()); }
  size_t num_logit_rows() const { return logit_rows_.size(); }
  // Valid until the next change.
  StepBatch batch() const;
  absl::Span<const int32_t> tokens(size_t sequence) const;
  // How many tokens of sequence `sequence` are pending after the step.
  int32_t pending(size_t sequence) const { return pending_after_[sequence]; }
  // Which of the logit rows are of sequence `sequence`: at least one.
  struct Range {
    int64_t first = 0, count = 0;
    int64_t last() const { return first + count - 1; }
  };
  Range logit_rows(size_t sequence) const;

 private:
  const bool has_kv_;
  const int32_t packs_from_;
  const StateArrays* const checkpoint_ring_;
  std::vector<int32_t> checkpoint_rows_, checkpoint_places_;
  std::vector<float*> checkpoint_sums_;
  std::vector<uint8_t> checkpoint_packed_;
  bool packs_ = false;  // one of them
  StepProgress* progress_ = nullptr;
  std::vector<int32_t> tokens_, row_start_, slots_, pages_, page_start_, logit_rows_, logit_start_;
  std::vector<int64_t> positions_;
  std::vector<int32_t> pending_before_, pending_after_;
  bool defers_ = false;                      // one of them
  std::vector<kernels::RowSampling> rules_;  // by logit row
  std::vector<float*> inner_sums_;
};

}  // namespace anabranch
