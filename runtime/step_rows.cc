#include "runtime/step_rows.h"

namespace anabranch {

void StepRows::Clear() {
  for (auto* list : {&tokens_, &slots_, &pages_, &logit_rows_, &checkpoint_rows_,
                     &checkpoint_places_, &pending_before_, &pending_after_}) {
    list->clear();
  }
  defers_ = false;
  checkpoint_sums_.clear();
  checkpoint_packed_.clear();
  packs_ = false;
  progress_ = nullptr;
  positions_.clear();
  rules_.clear();
  inner_sums_.clear();
  row_start_.assign(1, 0);
  logit_start_.assign(1, 0);
  page_start_.assign(has_kv_ ? 1 : 0, 0);
}

void StepRows::Add(const SlotRef& ref, absl::Span<const int32_t> tokens, bool all_logits,
                   const kernels::RowSampling& rule, float* inner_sum) {
  const int32_t end = tokens_.size() + tokens.size();
  for (int32_t row = all_logits ? tokens_.size() : end - 1; row < end; ++row) {
    logit_rows_.push_back(row);
    rules_.push_back(rule);
  }
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  row_start_.push_back(end);
  logit_start_.push_back(logit_rows_.size());
  slots_.push_back(ref.slot);
  positions_.push_back(ref.position);
  pending_before_.push_back(-1);
  pending_after_.push_back(0);
  inner_sums_.push_back(inner_sum);
  if (!has_kv_) return;
  pages_.insert(pages_.end(), ref.pages.begin(), ref.pages.end());
  page_start_.push_back(pages_.size());
}

void StepRows::Defer(const SlotRef& ref, int32_t after) {
  defers_ = true;
  pending_before_.back() = ref.pending;
  pending_after_.back() = after;
}

bool StepRows::AddCheckpoint(int64_t tokens, int32_t place, bool compact, float* inner_sum) {
  const int32_t begin = row_start_[row_start_.size() - 2], last = row_start_.back() - 1;
  const int32_t row = begin + static_cast<int32_t>(tokens) - 1;
  if (row != last) {  // the last row is at the end already
    logit_rows_.insert(logit_rows_.end() - 1, row);
    rules_.insert(rules_.end() - 1, kernels::RowSampling());
    ++logit_start_.back();
  }
  checkpoint_rows_.push_back(row);
  checkpoint_places_.push_back(place);
  checkpoint_sums_.push_back(inner_sum);
  const bool packed = compact && packs_from_ > 0 && last - begin + 1 >= packs_from_;
  checkpoint_packed_.push_back(packed ? 1 : 0);
  packs_ = packs_ || packed;
  return packed;
}

StepBatch StepRows::batch() const {
  StepBatch batch;
  batch.checkpoint_rows = checkpoint_rows_;
  batch.checkpoint_places = checkpoint_places_;
  batch.checkpoint_sums = checkpoint_sums_;
  batch.checkpoint_ring = checkpoint_ring_;
  batch.progress = progress_;
  if (packs_) batch.checkpoint_packed = checkpoint_packed_;
  batch.tokens = tokens_;
  batch.row_start = row_start_;
  batch.slots = slots_;
  batch.positions = positions_;
  if (defers_) {
    batch.pending_before = pending_before_;
    batch.pending_after = pending_after_;
  }
  batch.pages = pages_;
  batch.page_start = page_start_;
  batch.logit_rows = logit_rows_;
  batch.rules = rules_;
  batch.inner_sums = inner_sums_;
  return batch;
}

absl::Span<const int32_t> StepRows::tokens(size_t sequence) const {
  return absl::MakeSpan(tokens_).subspan(row_start_[sequence],
                                         row_start_[sequence + 1] - row_start_[sequence]);
}

StepRows::Range StepRows::logit_rows(size_t sequence) const {
  const int64_t first = logit_start_[sequence];
  return {first, logit_start_[sequence + 1] - first};
}

}  // namespace anabranch
