// Regular expressions in the reference's dialect (Oniguruma, UTF-8, default syntax), bounded so
// that no text can make a search run away. Immutable after compilation; any thread may search.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct re_pattern_buffer;  // Oniguruma's compiled pattern

namespace anabranch::tokenizer {

struct Range {
  size_t begin = 0, end = 0;  // bytes
};

class Regex {
 public:
  // INVALID_ARGUMENT with Oniguruma's message.
  static absl::StatusOr<Regex> Compile(absl::string_view pattern);
  static absl::StatusOr<Regex> Literal(
      absl::string_view text);  // every character stands for itself

  // All non-overlapping matches from left to right, into `matches` (cleared first). `text` is valid
  // UTF-8. INVALID_ARGUMENT if the pattern needs too many steps or too deep a stack on it.
  absl::Status FindAll(absl::string_view text, std::vector<Range>* matches) const;

 private:
  struct Free {
    void operator()(re_pattern_buffer* regex) const;
  };
  explicit Regex(re_pattern_buffer* regex) : regex_(regex) {}
  static absl::StatusOr<Regex> CompileAs(absl::string_view pattern, bool literal);

  std::unique_ptr<re_pattern_buffer, Free> regex_;
};

}  // namespace anabranch::tokenizer
