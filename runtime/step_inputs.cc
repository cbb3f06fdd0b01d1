#include "runtime/step_inputs.h"

#include <algorithm>
#include <cstring>

#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr size_t kAlignment = 16;

size_t Padded(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

absl::StatusOr<bool> StepInputs::Load(const StepBatch& batch) {
  const size_t seqs = batch.slots.size();
  rows_ = {static_cast<int32_t>(seqs), static_cast<int32_t>(batch.tokens.size()), 0,
           batch.row_start.data(), batch.slots.data()};
  max_context_ = 0;
  for (size_t i = 0; i < seqs; ++i) {
    const int32_t rows = batch.row_start[i + 1] - batch.row_start[i];
    rows_.longest = std::max(rows_.longest, rows);
    max_context_ = std::max(max_context_, batch.positions[i] + rows);
  }
  positions_ = batch.positions.data();
  pending_before_ = batch.pending_before.data();
  pending_after_ = batch.pending_after.data();
  deferring_ =
      static_cast<int32_t>(std::count_if(batch.pending_before.begin(), batch.pending_before.end(),
                                         [](int32_t tokens) { return tokens >= 0; }));
  pages_ = batch.pages.data();
  page_start_ = batch.page_start.data();
  tokens_ = batch.tokens.data();
  logit_rows_ = batch.logit_rows.data();
  rules_ = batch.rules.data();
  checkpoints_ = {static_cast<int32_t>(batch.checkpoint_rows.size()), batch.checkpoint_rows.data(),
                  batch.checkpoint_places.data(), batch.checkpoint_packed.data()};
  if (device_->in_host_memory()) return false;
  return Upload(batch);
}

absl::StatusOr<bool> StepInputs::Grow(size_t bytes) {
  if (bytes <= placed_.size()) return false;
  const size_t rounded = std::max<size_t>(2 * bytes, 64 << 10);
  ANABRANCH_ASSIGN_OR_RETURN(staging_, device_->AllocateHost(rounded));
  ANABRANCH_ASSIGN_OR_RETURN(placed_, device_->Allocate(rounded));
  return true;
}

// Pages come last: their number changes while a batch goes on.
absl::StatusOr<bool> StepInputs::Upload(const StepBatch& batch) {
  size_t bytes = 0;
  const auto need = [&](const auto& span) { bytes += Padded(span.size() * sizeof(span[0])); };
  need(batch.positions), need(batch.tokens), need(batch.row_start), need(batch.slots);
  need(batch.pending_before), need(batch.pending_after);
  need(batch.logit_rows), need(batch.rules), need(batch.page_start), need(batch.pages);
  need(batch.checkpoint_rows), need(batch.checkpoint_places), need(batch.checkpoint_packed);
  ANABRANCH_ASSIGN_OR_RETURN(const bool moved, Grow(bytes));
  size_t at = 0;
  const auto place = [&](const auto& span, auto*& pointer) {
    if (!span.empty()) {
      std::memcpy(static_cast<char*>(staging_.data()) + at, span.data(),
                  span.size() * sizeof(span[0]));
    }
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(
        static_cast<char*>(placed_.data()) + at);
    at += Padded(span.size() * sizeof(span[0]));
  };
  place(batch.positions, positions_);
  place(batch.tokens, tokens_);
  place(batch.row_start, rows_.row_start);
  place(batch.slots, rows_.slot);
  place(batch.pending_before, pending_before_);
  place(batch.pending_after, pending_after_);
  place(batch.logit_rows, logit_rows_);
  place(batch.rules, rules_);
  place(batch.page_start, page_start_);
  place(batch.pages, pages_);
  place(batch.checkpoint_rows, checkpoints_.row);
  place(batch.checkpoint_places, checkpoints_.place);
  if (!batch.checkpoint_packed.empty()) place(batch.checkpoint_packed, checkpoints_.packed);
  ANABRANCH_RETURN_IF_ERROR(
      device_->Queue(CopyDirection::kToDevice, {staging_.data(), placed_.data(), at}));
  return moved;
}

void StepInputs::Describe(StepContext& step) const {
  step.rows = rows_;
  step.positions = positions_;
  step.pages = pages_;
  step.page_start = page_start_;
  step.max_context = max_context_;
  step.deferring = deferring_;
  step.pending_before = pending_before_;
  step.pending_after = pending_after_;
  step.checkpoints = checkpoints_;
}

}  // namespace anabranch
