// Classes of code points, from Oniguruma's tables: the same ones its \s, \p{L} and \p{N} use, so
// that hand-written scanning and regular expressions never disagree.
#pragma once

#include <cstdint>

namespace anabranch::tokenizer {

inline constexpr uint8_t kWhitespace = 1, kWord = 2, kLetter = 4, kNumeric = 8, kPunctuation = 16;

// The classes of a code point, as bits.
uint8_t ClassesOf(char32_t code_point);

bool IsWhitespace(char32_t code_point);   // White_Space
bool IsWordChar(char32_t code_point);     // \w: alphabetic, mark, digit, connector, joiner
bool IsLetter(char32_t code_point);       // L
bool IsNumeric(char32_t code_point);      // N: decimal digits, letters and others
bool IsPunctuation(char32_t code_point);  // P, or an ASCII symbol such as $ or +

}  // namespace anabranch::tokenizer
