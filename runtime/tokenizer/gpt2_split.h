// The fixed pattern of ByteLevel's use_regex, by hand: several times faster than the regular
// expression and with no stack that a long word could exhaust.
#pragma once

#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/tokenizer/regex.h"

namespace anabranch::tokenizer {

// What SplitGpt2 computes; tests hold it to this.
inline constexpr absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Appends the words of text[range] to `words`; they cover it without gaps. `text` is valid UTF-8.
void SplitGpt2(absl::string_view text, Range range, std::vector<Range>* words);

}  // namespace anabranch::tokenizer
