#include "statestore/search_words.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

constexpr size_t kMaxQueryWords = 256;

}  // namespace

std::string AnyWord(absl::string_view query) {
  absl::flat_hash_set<std::string> seen;
  std::string expression, word;
  const auto end_word = [&] {
    if (!word.empty() && seen.size() < kMaxQueryWords && seen.insert(word).second) {
      absl::StrAppend(&expression, expression.empty() ? "" : " OR ", "\"", word, "\"");
    }
    word.clear();
  };
  for (const char c : query) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || absl::ascii_isalnum(byte)) {
      word.push_back(absl::ascii_tolower(byte));
    } else {
      end_word();
    }
  }
  end_word();
  return expression;
}

}  // namespace anabranch
