// "normalizer" of tokenizer.json: rewrites a piece of text before it is cut into words.
// Supported: NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace and Sequence of them.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/tokenizer/json_fields.h"

namespace anabranch::tokenizer {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Rewrites valid UTF-8 in place. INVALID_ARGUMENT if a pattern runs away on this text.
  virtual absl::Status Apply(std::string* text) const = 0;
};

// nullptr if `json` is nullptr or null: nothing to do. INVALID_ARGUMENT names what is unsupported.
absl::StatusOr<std::unique_ptr<Normalizer>> ParseNormalizer(const Json* json);

}  // namespace anabranch::tokenizer
