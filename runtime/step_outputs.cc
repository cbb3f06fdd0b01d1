#include "runtime/step_outputs.h"

#include <algorithm>

#include "runtime/float_convert.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

std::optional<SampledToken> Chosen(const DrawnToken& drawn) {
  if (drawn.token < 0) return std::nullopt;
  SampledToken sampled;
  sampled.token = drawn.token;
  sampled.logprob = drawn.logprob;
  return sampled;
}

}  // namespace

absl::Status StepOutputs::MakeRoom(int64_t rows) {
  const size_t bytes = rows * vocab_ * sizeof(float);
  if (bytes <= logits_.size()) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(logits_, model_->device()->AllocateHost(bytes));
  return absl::OkStatus();
}

absl::Status StepOutputs::Run(const StepRows& rows, const StateArrays& state) {
  const auto count = static_cast<int64_t>(rows.num_logit_rows());
  if (draws_) {
    drawn_.assign(count, DrawnToken());
    return model_->ForwardAndDraw(rows.batch(), state, valid_vocab_, absl::MakeSpan(drawn_));
  }
  ANABRANCH_RETURN_IF_ERROR(MakeRoom(count));
  return model_->Forward(rows.batch(), state, absl::MakeSpan(logits_.floats(), count * vocab_));
}

bool StepOutputs::Finite(const StepRows::Range& rows) const {
  if (!draws_) return AllFinite(logits_.floats() + rows.first * vocab_, rows.count * vocab_);
  const auto begin = drawn_.begin() + rows.first;
  return std::all_of(begin, begin + rows.count, [](const DrawnToken& row) { return row.finite; });
}

absl::StatusOr<absl::Span<const float>> StepOutputs::Logits(const StepRows::Range& rows) {
  if (!draws_) {
    return absl::MakeSpan(logits_.floats() + rows.first * vocab_, rows.count * vocab_);
  }
  ANABRANCH_RETURN_IF_ERROR(MakeRoom(rows.count));
  const absl::Span<float> logits = absl::MakeSpan(logits_.floats(), rows.count * vocab_);
  ANABRANCH_RETURN_IF_ERROR(model_->ReadLogits(rows.first, logits));
  return logits;
}

absl::Status StepOutputs::Keep(Sequence& sequence) {
  if (sequence.logits_row < 0) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const absl::Span<const float> logits,
                             Logits({sequence.logits_row, 1}));
  sequence.last_logits = std::make_shared<const std::vector<float>>(logits.begin(), logits.end());
  sequence.logits_row = -1;
  return absl::OkStatus();
}

absl::Status StepOutputs::CopyLogits(int64_t first, absl::Span<float* const> to) {
  if (draws_) return model_->CopyLogits(first, to);
  for (size_t i = 0; i < to.size(); ++i) {
    const float* const from = logits_.floats() + (first + static_cast<int64_t>(i)) * vocab_;
    std::copy_n(from, vocab_, to[i]);
  }
  return absl::OkStatus();
}

std::optional<SampledToken> StepOutputs::Drawn(int64_t row) const {
  return draws_ ? Chosen(drawn_[row]) : std::nullopt;
}

absl::StatusOr<std::optional<SampledToken>> StepOutputs::DrawFrom(
    absl::Span<const float> logits, const kernels::RowSampling& rule) {
  if (!draws_) return std::nullopt;
  ANABRANCH_ASSIGN_OR_RETURN(const DrawnToken drawn, model_->Draw(logits, valid_vocab_, rule));
  return Chosen(drawn);
}

}  // namespace anabranch
