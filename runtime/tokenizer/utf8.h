// UTF-8 as the tokenizer needs it: strict validation, lossy decoding that can be fed in parts, and
// a cursor over text that is already known to be valid. Surrogates, overlong forms and code points
// above U+10FFFF are invalid.
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace anabranch::tokenizer {

// Bytes of the longest valid prefix; bytes.size() if all of it is valid.
size_t ValidUtf8Length(absl::string_view bytes);

// Appends `bytes` to `out` with U+FFFD for each maximal part of a broken character (as in the
// Unicode standard, chapter 3.9). Unless `is_final`, an unfinished character at the end is left
// for later. Returns the bytes consumed.
size_t AppendLossyUtf8(absl::string_view bytes, bool is_final, std::string* out);

// The code point at text[*pos], moving *pos behind it. `text` is valid and *pos is inside it.
char32_t NextCodePoint(absl::string_view text, size_t* pos);
// The code point that ends before `end`, moving it to that code point's first byte. `end` > 0.
char32_t PreviousCodePoint(absl::string_view text, size_t* end);

void AppendCodePoint(char32_t code_point, std::string* out);

}  // namespace anabranch::tokenizer
