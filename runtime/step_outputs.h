// What a step gives besides the new states: the logits of some rows, whether they are finite, and
// the tokens drawn from them where the model draws. Such a model keeps the logits on its device,
// and they come to the host only when somebody asks: in most steps nobody does.
//
// Thread rule: the engine's thread. All is of the last step and valid until the next Run.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/model.h"
#include "runtime/sampler.h"
#include "runtime/sequence.h"
#include "runtime/step_rows.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class StepOutputs {
 public:
  // Tokens below `valid_vocab` may be drawn.
  StepOutputs(std::shared_ptr<Model> model, int32_t valid_vocab)
      : model_(std::move(model)),
        vocab_(model_->description().vocab),
        valid_vocab_(valid_vocab),
        draws_(model_->draws_tokens()) {}

  absl::Status Run(const StepRows& rows, const StateArrays& state);

  bool Finite(const StepRows::Range& rows) const;
  // [rows, vocab], in host memory until the next call.
  absl::StatusOr<absl::Span<const float>> Logits(const StepRows::Range& rows);
  // Brings the logits of a sequence that are still in the last step to where they outlive it.
  absl::Status Keep(Sequence& sequence);
  // Logits where the model runs: row first + i to to[i].
  absl::Status CopyLogits(int64_t first, absl::Span<float* const> to);
  // After one logit row; nothing where the host has to choose.
  std::optional<SampledToken> Drawn(int64_t row) const;
  // The same for logits that a sequence kept.
  absl::StatusOr<std::optional<SampledToken>> DrawFrom(absl::Span<const float> logits,
                                                       const kernels::RowSampling& rule);

 private:
  absl::Status MakeRoom(int64_t rows);

  const std::shared_ptr<Model> model_;
  const int64_t vocab_;
  const int32_t valid_vocab_;
  const bool draws_;
  std::vector<DrawnToken> drawn_;  // by logit row, if draws_
  Buffer logits_;                  // that the device copies to quickly; grows
};

}  // namespace anabranch
