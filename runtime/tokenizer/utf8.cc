#include "runtime/tokenizer/utf8.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>

namespace anabranch::tokenizer {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

// How much of the character that starts at bytes[0] is there: `have` well-formed bytes of the
// `need` that the first byte announces. need = 0: not a first byte.
struct Sequence {
  size_t have = 0, need = 0;
};

Sequence ReadSequence(absl::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = at(0);
  if (lead < 0x80) return {1, 1};
  if (lead < 0xC2 || lead > 0xF4) return {0, 0};
  Sequence sequence{1, lead < 0xE0 ? size_t{2} : lead < 0xF0 ? size_t{3} : size_t{4}};
  // The second byte's range excludes overlong forms, surrogates and what is above U+10FFFF.
  uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  const size_t end = std::min(sequence.need, bytes.size());
  while (sequence.have < end && at(sequence.have) >= low && at(sequence.have) <= high) {
    ++sequence.have;
    low = 0x80;
    high = 0xBF;
  }
  return sequence;
}

}  // namespace

size_t ValidUtf8Length(absl::string_view bytes) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    if (static_cast<uint8_t>(bytes[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const Sequence sequence = ReadSequence(bytes.substr(pos));
    if (sequence.need == 0 || sequence.have < sequence.need) return pos;
    pos += sequence.have;
  }
  return pos;
}

size_t AppendLossyUtf8(absl::string_view bytes, bool is_final, std::string* out) {
  size_t pos = 0;
  while (pos < bytes.size()) {
    const absl::string_view rest = bytes.substr(pos);
    const size_t valid = ValidUtf8Length(rest);
    out->append(rest.data(), valid);
    pos += valid;
    if (pos == bytes.size()) break;
    const Sequence sequence = ReadSequence(bytes.substr(pos));
    if (!is_final && sequence.have > 0 && pos + sequence.have == bytes.size()) break;
    out->append(kReplacement.data(), kReplacement.size());
    pos += std::max<size_t>(sequence.have, 1);
  }
  return pos;
}

char32_t NextCodePoint(absl::string_view text, size_t* pos) {
  const auto* data = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + *pos;
  if (*data < 0x80) {
    ++*pos;
    return *data;
  }
  utf8proc_int32_t code_point = 0;
  const auto rest = static_cast<utf8proc_ssize_t>(text.size() - *pos);
  const utf8proc_ssize_t length = utf8proc_iterate(data, rest, &code_point);
  if (length <= 0) {  // not valid after all: step over one byte rather than loop
    ++*pos;
    return 0xFFFD;
  }
  *pos += static_cast<size_t>(length);
  return static_cast<char32_t>(code_point);
}

char32_t PreviousCodePoint(absl::string_view text, size_t* end) {
  do {
    --*end;
  } while (*end > 0 && (static_cast<uint8_t>(text[*end]) & 0xC0) == 0x80);
  size_t pos = *end;
  return NextCodePoint(text, &pos);
}

void AppendCodePoint(char32_t code_point, std::string* out) {
  utf8proc_uint8_t buffer[4];
  const utf8proc_ssize_t length =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), buffer);
  out->append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(length));
}

}  // namespace anabranch::tokenizer
