// Unicode normalization forms in linear time (n log n for runs of combining marks).
#pragma once

#include <string>

#include "absl/status/status.h"

namespace anabranch::tokenizer {

struct UnicodeForm {
  bool compose = false;        // C, else D
  bool compatibility = false;  // K
};

// Rewrites valid UTF-8 in place.
absl::Status NormalizeUnicode(const UnicodeForm& form, std::string* text);

}  // namespace anabranch::tokenizer
