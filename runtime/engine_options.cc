#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/engine.h"

namespace anabranch {

absl::Status EngineOptions::Validate(int64_t vocab) const {
  if (vocab < 1 || vocab > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError("the model's vocabulary is out of range");
  }
  if (max_prefill_rows < 1 || max_prefill_rows_decoding < 1 || max_decode_rows < 1 ||
      max_score_rows < 1 || max_queue < 1 || max_context_tokens < 1) {
    return absl::InvalidArgumentError("the engine's limits must all be at least 1");
  }
  if (valid_vocab < 0 || valid_vocab > vocab) {
    return absl::InvalidArgumentError(absl::StrCat("valid_vocab must be between 0 and ", vocab));
  }
  return absl::OkStatus();
}

}  // namespace anabranch
