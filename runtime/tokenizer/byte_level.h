// The printable alphabet of byte-level tokenizers: each byte has one code point below U+0144.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace anabranch::tokenizer {

// Appends each byte of `bytes` as its printable character (UTF-8).
void AppendByteLevel(absl::string_view bytes, std::string* out);

// The bytes a token stands for: its characters mapped back. A token with a character outside the
// alphabet (an added token, for example a run of spaces) stands for its own UTF-8.
std::string ByteLevelTokenBytes(absl::string_view token);

}  // namespace anabranch::tokenizer
