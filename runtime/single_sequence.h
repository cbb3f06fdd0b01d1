// One sequence with a state buffer of its own, for offline checks and tests that need a model but
// no engine.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/model.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class SingleSequence {
 public:
  // An empty sequence with room for `max_tokens`. `model` outlives it.
  static absl::StatusOr<SingleSequence> Create(Model& model, int64_t max_tokens);

  // Reads the tokens in one step; returns the logits after each, [tokens, vocab].
  // OUT_OF_RANGE beyond max_tokens.
  absl::StatusOr<std::vector<float>> Read(absl::Span<const int32_t> tokens);

  int64_t position() const { return position_; }
  // A copy of all state, entry by entry (KV pages whole).
  absl::StatusOr<std::vector<uint8_t>> state_bytes() const;

 private:
  explicit SingleSequence(Model& model) : model_(&model) {}

  Model* model_;
  Buffer memory_;
  StateArrays arrays_;
  std::vector<int32_t> pages_;
  int64_t position_ = 0, max_tokens_ = 0;
};

}  // namespace anabranch
