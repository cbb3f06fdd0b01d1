#include "service/answer_support.h"

#include <algorithm>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "statestore/search_words.h"

namespace anabranch {
namespace {

// A mark that ends a sentence does so before a space: "3.6" is a word and its neighbour.
std::vector<absl::string_view> SentencesOf(absl::string_view line) {
  std::vector<absl::string_view> sentences;
  size_t begin = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    const bool mark = line[i] == '.' || line[i] == '!' || line[i] == '?';
    const bool last = i + 1 == line.size();
    if (!last && !(mark && absl::ascii_isspace(line[i + 1]))) continue;
    sentences.push_back(line.substr(begin, i + 1 - begin));
    begin = i + 1;
  }
  return sentences;
}

// What a question and its answer say.
struct Claim {
  WordWeights weights;                    // of its words alone
  absl::flat_hash_set<std::string> news;  // what the answer adds
  double all = 0;                         // of the weights
};

Claim ClaimOf(absl::string_view question, absl::string_view answer, const WordWeights& weights) {
  Claim claim;
  const auto add = [&](const std::string& word) {
    const auto weight = weights.find(word);
    if (!claim.weights.emplace(word, weight == weights.end() ? 0 : weight->second).second) {
      return false;
    }
    claim.all += claim.weights[word];
    return true;
  };
  for (const std::string& word : WordsOf(question)) add(word);
  for (const std::string& word : WordsOf(answer)) {
    if (add(word)) claim.news.insert(word);
  }
  return claim;
}

double SupportBy(const Claim& claim, absl::string_view passage) {
  double found = 0;
  bool any_news = false;
  for (const std::string& word : WordsOf(passage)) {
    const auto weight = claim.weights.find(word);
    if (weight == claim.weights.end()) continue;
    found += weight->second;
    any_news |= claim.news.contains(word);
  }
  return any_news && claim.all > 0 ? std::min(found / claim.all, 1.0) : 0;
}

}  // namespace

double AnswerSupport(absl::string_view question, absl::string_view answer, absl::string_view text,
                     const WordWeights& weights) {
  const Claim claim = ClaimOf(question, answer, weights);
  double best = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    absl::string_view before;
    for (const absl::string_view sentence : SentencesOf(line)) {
      // Of one line, so that they lie beside each other.
      const char* begin = before.empty() ? sentence.data() : before.data();
      const absl::string_view passage(begin, sentence.data() + sentence.size() - begin);
      best = std::max(best, SupportBy(claim, passage));
      before = sentence;
    }
  }
  return best;
}

}  // namespace anabranch
