#include "runtime/single_sequence.h"

#include <cstring>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

absl::StatusOr<SingleSequence> SingleSequence::Create(Model& model, int64_t max_tokens) {
  SingleSequence sequence(model);
  sequence.max_tokens_ = max_tokens;
  const int64_t pages = (max_tokens + kKvPageTokens - 1) / kKvPageTokens;
  const StateLayout& layout = model.state_layout();
  if (layout.has_kv()) {
    sequence.pages_.resize(pages);
    std::iota(sequence.pages_.begin(), sequence.pages_.end(), 0);
  }
  // Each entry starts at a multiple of 64 bytes, as kernels may expect.
  constexpr size_t kAlignment = 64;
  std::vector<size_t> offsets;
  size_t total = 0;
  for (const StateEntry& entry : layout.entries) {
    offsets.push_back(total);
    total += entry.bytes() * (entry.paged() ? pages : 1);
    total = (total + kAlignment - 1) / kAlignment * kAlignment;
  }
  ANABRANCH_ASSIGN_OR_RETURN(sequence.memory_, model.device()->Allocate(total));
  const auto memory = absl::MakeSpan(static_cast<uint8_t*>(sequence.memory_.data()), total);
  ANABRANCH_RETURN_IF_ERROR(model.device()->Fill({memory}, 0));
  for (size_t i = 0; i < layout.entries.size(); ++i) {
    sequence.arrays_.base.push_back(static_cast<char*>(sequence.memory_.data()) + offsets[i]);
    sequence.arrays_.stride.push_back(layout.entries[i].stride());
  }
  return sequence;
}

absl::StatusOr<std::vector<float>> SingleSequence::Read(absl::Span<const int32_t> tokens) {
  const int64_t rows = static_cast<int64_t>(tokens.size());
  if (rows == 0 || rows > max_tokens_ - position_) {
    return absl::OutOfRangeError(
        absl::StrCat("cannot read ", rows, " tokens at ", position_, " of ", max_tokens_));
  }
  const std::vector<int32_t> row_start = {0, static_cast<int32_t>(rows)};
  const std::vector<int32_t> slots = {0};
  const std::vector<int64_t> positions = {position_};
  const std::vector<int32_t> page_start = {0, static_cast<int32_t>(pages_.size())};
  std::vector<int32_t> logit_rows(rows);
  std::iota(logit_rows.begin(), logit_rows.end(), 0);
  StepBatch batch;
  batch.tokens = tokens;
  batch.row_start = row_start;
  batch.slots = slots;
  batch.positions = positions;
  batch.pages = pages_;
  batch.page_start = page_start;
  batch.logit_rows = logit_rows;
  std::vector<float> logits(rows * model_->description().vocab);
  ANABRANCH_RETURN_IF_ERROR(model_->Forward(batch, arrays_, absl::MakeSpan(logits)));
  position_ += rows;
  return logits;
}

absl::StatusOr<std::vector<uint8_t>> SingleSequence::state_bytes() const {
  std::vector<uint8_t> bytes(memory_.size());
  const CopyPart part{memory_.data(), bytes.data(), bytes.size()};
  ANABRANCH_RETURN_IF_ERROR(model_->device()->Copy(CopyDirection::kToHost, {part}));
  return bytes;
}

}  // namespace anabranch
