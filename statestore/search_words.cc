#include "statestore/search_words.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

constexpr size_t kMaxQueryWords = 256;

}  // namespace

std::vector<std::string> WordsOf(absl::string_view text) {
  absl::flat_hash_set<std::string> seen;
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty() && seen.insert(word).second) words.push_back(word);
    word.clear();
  };
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || absl::ascii_isalnum(byte)) {
      word.push_back(absl::ascii_tolower(byte));
    } else {
      end_word();
    }
  }
  end_word();
  return words;
}

std::string AnyWord(absl::string_view query) {
  std::vector<std::string> words = WordsOf(query);
  if (words.size() > kMaxQueryWords) words.resize(kMaxQueryWords);
  std::string expression;
  for (const std::string& word : words) {
    absl::StrAppend(&expression, expression.empty() ? "" : " OR ", "\"", word, "\"");
  }
  return expression;
}

}  // namespace anabranch
