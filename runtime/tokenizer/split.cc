#include "runtime/tokenizer/split.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch::tokenizer {
namespace {

struct Part {
  Range range;
  bool is_match = false;
};

std::vector<Part> MatchesAndGaps(Range text, const std::vector<Range>& matches, bool invert) {
  std::vector<Part> parts;
  parts.reserve(2 * matches.size() + 1);
  size_t pos = text.begin;
  for (const Range& match : matches) {
    if (pos < match.begin) parts.push_back({{pos, match.begin}, invert});
    parts.push_back({match, !invert});
    pos = match.end;
  }
  if (pos < text.end) parts.push_back({{pos, text.end}, invert});
  return parts;
}

// Whether part b joins the word that part a (its left neighbour) is in.
bool Joins(const Part& a, const Part& b, SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::kMergedWithPrevious:
      return b.is_match && !a.is_match;
    case SplitBehavior::kMergedWithNext:
      return a.is_match && !b.is_match;
    case SplitBehavior::kContiguous:
      return a.is_match == b.is_match;
    case SplitBehavior::kRemoved:
    case SplitBehavior::kIsolated:
      return false;
  }
  return false;
}

}  // namespace

absl::StatusOr<SplitBehavior> ParseSplitBehavior(const Json& object, absl::string_view component) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::string name, StringField(object, "behavior", component));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return Unsupported(absl::StrCat(component, " behavior"), name);
}

void SplitAtMatches(Range text, const std::vector<Range>& matches, SplitBehavior behavior,
                    bool invert, std::vector<Range>* words) {
  if (matches.empty() && (!invert || behavior != SplitBehavior::kRemoved)) {
    if (text.begin < text.end) words->push_back(text);
    return;
  }
  const std::vector<Part> parts = MatchesAndGaps(text, matches, invert);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (behavior == SplitBehavior::kRemoved && parts[i].is_match) continue;
    Range word = parts[i].range;
    while (i + 1 < parts.size() && Joins(parts[i], parts[i + 1], behavior)) {
      word.end = parts[++i].range.end;
    }
    if (word.begin < word.end) words->push_back(word);
  }
}

}  // namespace anabranch::tokenizer
