#include "runtime/tokenizer/unicode_class.h"

#include <oniguruma.h>

#include <array>
#include <cstdint>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace anabranch::tokenizer {
namespace {

constexpr char32_t kTableSize =
    0x600;  // Latin, Greek, Cyrillic, Hebrew: one load instead of a search

bool HasProperty(char32_t code_point, OnigCtype property) {
  return ONIGENC_IS_CODE_CTYPE(ONIG_ENCODING_UTF8, code_point, property) != 0;
}

// Names are constants of this file; an unknown one would match nothing, which the tests would see.
OnigCtype Property(absl::string_view name) {
  std::string buffer(name);
  auto* begin = reinterpret_cast<OnigUChar*>(buffer.data());
  const int property =
      ONIGENC_PROPERTY_NAME_TO_CTYPE(ONIG_ENCODING_UTF8, begin, begin + buffer.size());
  return static_cast<OnigCtype>(property);
}

struct Properties {
  OnigCtype white_space = Property("White_Space"), letter = Property("L"), number = Property("N"),
            punctuation = Property("P"), alphabetic = Property("Alphabetic"), mark = Property("M"),
            digit = Property("Nd"), connector = Property("Pc"), joiner = Property("Join_Control");
};

uint8_t Classify(char32_t c) {
  static const Properties properties;
  uint8_t classes = 0;
  if (HasProperty(c, properties.white_space)) classes |= kWhitespace;
  if (HasProperty(c, properties.letter)) classes |= kLetter;
  if (HasProperty(c, properties.number)) classes |= kNumeric;
  if (HasProperty(c, properties.punctuation) ||
      (c < 0x80 && absl::ascii_ispunct(static_cast<unsigned char>(c)))) {
    classes |= kPunctuation;
  }
  for (const OnigCtype property : {properties.alphabetic, properties.mark, properties.digit,
                                   properties.connector, properties.joiner}) {
    if (HasProperty(c, property)) classes |= kWord;
  }
  return classes;
}

std::array<uint8_t, kTableSize> MakeTable() {
  std::array<uint8_t, kTableSize> table;
  for (char32_t c = 0; c < kTableSize; ++c) table[c] = Classify(c);
  return table;
}

}  // namespace

uint8_t ClassesOf(char32_t code_point) {
  static const std::array<uint8_t, kTableSize> table = MakeTable();
  return code_point < kTableSize ? table[code_point] : Classify(code_point);
}

bool IsWhitespace(char32_t code_point) { return (ClassesOf(code_point) & kWhitespace) != 0; }
bool IsWordChar(char32_t code_point) { return (ClassesOf(code_point) & kWord) != 0; }
bool IsLetter(char32_t code_point) { return (ClassesOf(code_point) & kLetter) != 0; }
bool IsNumeric(char32_t code_point) { return (ClassesOf(code_point) & kNumeric) != 0; }
bool IsPunctuation(char32_t code_point) { return (ClassesOf(code_point) & kPunctuation) != 0; }

}  // namespace anabranch::tokenizer
