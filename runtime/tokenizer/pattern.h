// {"Regex": "..."} or {"String": "..."} as it occurs in normalizers, pre-tokenizers and decoders,
// and the replacing of its matches.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/regex.h"

namespace anabranch::tokenizer {

// The object's "pattern". `component` names its owner in errors.
absl::StatusOr<Regex> ParsePattern(const Json& object, absl::string_view component);

// Puts a fixed text in place of each match.
class Replacement {
 public:
  // From {"pattern": ..., "content": "..."}.
  static absl::StatusOr<Replacement> Parse(const Json& object, absl::string_view component);
  // Rewrites valid UTF-8. RESOURCE_EXHAUSTED if the result would be beyond 1 GiB.
  absl::Status Apply(std::string* text) const;

 private:
  Replacement(Regex pattern, std::string content);

  Regex pattern_;
  std::string content_;
};

}  // namespace anabranch::tokenizer
