#include "runtime/tokenizer/gpt2_split.h"

#include <cstdint>

#include "absl/strings/match.h"
#include "runtime/tokenizer/unicode_class.h"
#include "runtime/tokenizer/utf8.h"

namespace anabranch::tokenizer {
namespace {

constexpr uint8_t kKinds = kWhitespace | kLetter | kNumeric;  // 0: none of them, the fourth kind

uint8_t KindAt(absl::string_view text, size_t pos) {
  return ClassesOf(NextCodePoint(text, &pos)) & kKinds;
}

// End of the run of characters of one kind that begins at `pos`; *last is where its last one
// begins.
size_t RunEnd(absl::string_view text, size_t pos, uint8_t kind, size_t* last) {
  while (pos < text.size()) {
    size_t next = pos;
    if ((ClassesOf(NextCodePoint(text, &next)) & kKinds) != kind) break;
    *last = pos;
    pos = next;
  }
  return pos;
}

// Length of the contraction at the start of `text`, 0 if there is none.
size_t Contraction(absl::string_view text) {
  if (text[0] != '\'' || text.size() < 2) return 0;
  switch (text[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return absl::StartsWith(text.substr(2), "e") ? 3 : 0;
    case 'l':
      return absl::StartsWith(text.substr(2), "l") ? 3 : 0;
    default:
      return 0;
  }
}

// End of the word that begins at `pos`.
size_t WordEnd(absl::string_view text, size_t pos) {
  if (const size_t length = Contraction(text.substr(pos)); length > 0) return pos + length;
  size_t last = pos;
  // One space joins the word behind it.
  if (text[pos] == ' ' && pos + 1 < text.size()) {
    const uint8_t kind = KindAt(text, pos + 1);
    if (kind != kWhitespace) return RunEnd(text, pos + 1, kind, &last);
  }
  const uint8_t kind = KindAt(text, pos);
  const size_t end = RunEnd(text, pos, kind, &last);
  // White space before a word leaves it its last character.
  return kind == kWhitespace && end < text.size() && last > pos ? last : end;
}

}  // namespace

void SplitGpt2(absl::string_view text, Range range, std::vector<Range>* words) {
  const absl::string_view part = text.substr(0, range.end);
  for (size_t pos = range.begin; pos < range.end;) {
    const size_t end = WordEnd(part, pos);
    words->push_back({pos, end});
    pos = end;
  }
}

}  // namespace anabranch::tokenizer
