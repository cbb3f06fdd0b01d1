#include "runtime/check_batch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status BadBatch(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("batch: ", what));
}

// `starts` is [n + 1], from 0 to total, never descending; `min_step` items each.
bool ValidStarts(absl::Span<const int32_t> starts, size_t n, size_t total, int32_t min_step) {
  if (starts.size() != n + 1 || starts[0] != 0) return false;
  for (size_t i = 0; i < n; ++i) {
    if (starts[i + 1] < starts[i] || starts[i + 1] - starts[i] < min_step) return false;
  }
  return static_cast<size_t>(starts[n]) == total;
}

absl::Status CheckPages(const StepBatch& batch) {
  const size_t seqs = batch.slots.size();
  if (!ValidStarts(batch.page_start, seqs, batch.pages.size(), 0)) {
    return BadBatch("page_start does not match pages");
  }
  for (size_t i = 0; i < seqs; ++i) {
    const int64_t tokens = batch.positions[i] + batch.row_start[i + 1] - batch.row_start[i];
    const int64_t pages = batch.page_start[i + 1] - batch.page_start[i];
    if (pages < (tokens + kKvPageTokens - 1) / kKvPageTokens) {
      return BadBatch(
          absl::StrCat("sequence ", i, " has ", pages, " pages for ", tokens, " tokens"));
    }
  }
  for (int32_t page : batch.pages) {
    if (page < 0) return BadBatch("negative page");
  }
  return absl::OkStatus();
}

bool Defers(const StepBatch& batch, size_t seq) {
  return !batch.pending_before.empty() && batch.pending_before[seq] >= 0;
}

// A batch of which nothing defers has no arrays of it.
absl::Status CheckPending(const StepBatch& batch, const StateArrays& state,
                          const StateLayout& layout) {
  const size_t seqs = batch.slots.size();
  if (batch.pending_before.empty() && batch.pending_after.empty()) return absl::OkStatus();
  if (batch.pending_before.size() != seqs || batch.pending_after.size() != seqs ||
      layout.pending_room == 0 || state.pending_base.size() != layout.pending.size() ||
      state.pending_stride.size() != layout.pending.size()) {
    return BadBatch("pending tokens do not match slots, or there is no room for any");
  }
  for (size_t i = 0; i < seqs; ++i) {
    if (batch.pending_before[i] > layout.pending_room ||
        batch.pending_after[i] > layout.pending_room) {
      return BadBatch(absl::StrCat("sequence ", i, " has more pending tokens than there is room"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckDeferring(const StepBatch& batch, const StateArrays& state,
                            const StateLayout& layout) {
  ANABRANCH_RETURN_IF_ERROR(CheckPending(batch, state, layout));
  for (size_t i = 0; i < batch.slots.size(); ++i) {
    if (!Defers(batch, i)) continue;
    const int32_t row = batch.row_start[i];
    const int32_t before = batch.pending_before[i], after = batch.pending_after[i];
    const auto& kept = batch.checkpoint_rows;
    if (batch.row_start[i + 1] != row + 1 || (after != 0 && after != before + 1) ||
        std::find(kept.begin(), kept.end(), row) != kept.end()) {
      return BadBatch(absl::StrCat("sequence ", i, " cannot defer like that"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCheckpoints(const StepBatch& batch, const StateLayout& layout) {
  const size_t count = batch.checkpoint_rows.size();
  if (count == 0) return absl::OkStatus();
  const StateArrays* ring = batch.checkpoint_ring;
  if (batch.checkpoint_places.size() != count || ring == nullptr ||
      ring->base.size() != layout.entries.size() || ring->stride.size() != layout.entries.size() ||
      (!batch.inner_sums.empty() && batch.checkpoint_sums.size() != count)) {
    return BadBatch("checkpoints without places");
  }
  if (!batch.checkpoint_packed.empty() &&
      (batch.checkpoint_packed.size() != count || layout.packs_from() == 0)) {
    return BadBatch("packed checkpoints of a model that has none, or not all are told");
  }
  int32_t previous = -1;
  for (size_t i = 0; i < count; ++i) {
    const int32_t row = batch.checkpoint_rows[i];
    if (row <= previous || static_cast<size_t>(row) >= batch.tokens.size() ||
        batch.checkpoint_places[i] < 0) {
      return BadBatch("checkpoint_rows is not ascending within the rows, or a place is negative");
    }
    previous = row;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBatch(const StepBatch& batch, const StateArrays& state, const StateLayout& layout,
                        int64_t vocab, size_t logits_size) {
  const size_t seqs = batch.slots.size();
  if (seqs == 0 || !ValidStarts(batch.row_start, seqs, batch.tokens.size(), 1)) {
    return BadBatch("row_start does not match tokens, or a sequence has no rows");
  }
  if (batch.positions.size() != seqs) return BadBatch("positions does not match slots");
  for (size_t i = 0; i < seqs; ++i) {
    if (batch.slots[i] < 0 || batch.positions[i] < 0) return BadBatch("negative slot or position");
  }
  for (int32_t id : batch.tokens) {
    if (id < 0 || id >= vocab) {
      return BadBatch(absl::StrCat("token ", id, " is not in [0, ", vocab, ")"));
    }
  }
  int32_t previous = -1;
  for (int32_t row : batch.logit_rows) {
    if (row <= previous || static_cast<size_t>(row) >= batch.tokens.size()) {
      return BadBatch("logit_rows is not ascending within the rows");
    }
    previous = row;
  }
  if (logits_size != batch.logit_rows.size() * static_cast<size_t>(vocab)) {
    return BadBatch("logits does not match logit_rows");
  }
  if (!batch.inner_sums.empty() && batch.inner_sums.size() != seqs) {
    return BadBatch("inner_sums does not match slots");
  }
  ANABRANCH_RETURN_IF_ERROR(CheckCheckpoints(batch, layout));
  if (state.base.size() != layout.entries.size() || state.stride.size() != layout.entries.size()) {
    return BadBatch("state arrays of another layout");
  }
  ANABRANCH_RETURN_IF_ERROR(CheckDeferring(batch, state, layout));
  return layout.has_kv() ? CheckPages(batch) : absl::OkStatus();
}

absl::Status CheckFold(const StepBatch& batch, const StateArrays& state,
                       const StateLayout& layout) {
  const size_t seqs = batch.slots.size();
  if (seqs == 0 || batch.positions.size() != seqs || batch.pending_before.size() != seqs ||
      batch.row_start.size() != seqs + 1 || batch.row_start[seqs] != 0) {
    return BadBatch("what is to be folded does not fit together, or has rows");
  }
  for (size_t i = 0; i < seqs; ++i) {
    if (batch.slots[i] < 0 || batch.positions[i] < 0 || batch.pending_after[i] != 0) {
      return BadBatch("negative slot or position, or tokens that would stay pending");
    }
  }
  return CheckPending(batch, state, layout);
}

}  // namespace anabranch
