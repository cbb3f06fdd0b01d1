#include "runtime/token_drawer.h"

#include <algorithm>
#include <cstring>

#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr size_t kRuleBytes = 64;  // of a rule before its logits: keeps them aligned
static_assert(sizeof(kernels::RowSampling) <= kRuleBytes);

}  // namespace

absl::StatusOr<bool> TokenDrawer::Reserve(int64_t rows) {
  if (rows <= capacity_) return false;
  const int64_t capacity = std::max<int64_t>(2 * rows, 64);
  ANABRANCH_ASSIGN_OR_RETURN(placed_, device_->Allocate(3 * capacity * sizeof(int32_t)));
  ANABRANCH_ASSIGN_OR_RETURN(results_, device_->AllocateHost(3 * capacity * sizeof(int32_t)));
  capacity_ = capacity;
  return true;
}

absl::Status TokenDrawer::Queue(const float* logits, int64_t rows, int32_t valid_vocab,
                                const kernels::RowSampling* rules) const {
  kernels::SampleParams params;
  params.rows = rows;
  params.logits = logits;
  params.logits_stride = vocab_;
  params.vocab = static_cast<int32_t>(vocab_);
  params.valid_vocab = valid_vocab;
  params.rules = rules;
  params.token = static_cast<int32_t*>(placed_.data());
  params.logprob = placed_.floats() + capacity_;
  params.finite = params.token + 2 * capacity_;
  return device_->kernels().sample(params, device_->launch());
}

absl::Status TokenDrawer::QueueResults() {
  return device_->Queue(CopyDirection::kToHost,
                        {placed_.data(), results_.data(), 3 * capacity_ * sizeof(int32_t)});
}

void TokenDrawer::Results(absl::Span<DrawnToken> drawn) const {
  const auto* token = static_cast<const int32_t*>(results_.data());
  for (size_t row = 0; row < drawn.size(); ++row) {
    drawn[row] = {token[row], results_.floats()[capacity_ + row], token[2 * capacity_ + row] != 0};
  }
}

absl::StatusOr<DrawnToken> TokenDrawer::DrawOne(absl::Span<const float> logits, int32_t valid_vocab,
                                                const kernels::RowSampling& rule) {
  const size_t bytes = kRuleBytes + vocab_ * sizeof(float);
  if (one_.size() < bytes) {
    ANABRANCH_ASSIGN_OR_RETURN(one_placed_, device_->Allocate(bytes));
    ANABRANCH_ASSIGN_OR_RETURN(one_, device_->AllocateHost(bytes));
  }
  ANABRANCH_RETURN_IF_ERROR(Reserve(1).status());
  std::memcpy(one_.data(), &rule, sizeof(rule));
  std::memcpy(static_cast<char*>(one_.data()) + kRuleBytes, logits.data(), bytes - kRuleBytes);
  ANABRANCH_RETURN_IF_ERROR(
      device_->Queue(CopyDirection::kToDevice, {one_.data(), one_placed_.data(), bytes}));
  ANABRANCH_RETURN_IF_ERROR(Queue(one_placed_.floats() + kRuleBytes / sizeof(float), 1, valid_vocab,
                                  static_cast<const kernels::RowSampling*>(one_placed_.data())));
  ANABRANCH_RETURN_IF_ERROR(QueueResults());
  ANABRANCH_RETURN_IF_ERROR(device_->Wait());
  DrawnToken drawn;
  Results(absl::MakeSpan(&drawn, 1));
  return drawn;
}

}  // namespace anabranch
