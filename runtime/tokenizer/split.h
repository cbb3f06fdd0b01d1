// Cutting text at matches: what becomes of the matches and of the gaps between them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tokenizer/json_fields.h"
#include "runtime/tokenizer/regex.h"

namespace anabranch::tokenizer {

enum class SplitBehavior {
  kRemoved,             // matches are dropped
  kIsolated,            // each match is a word
  kMergedWithPrevious,  // a match belongs to the gap before it
  kMergedWithNext,      // a match belongs to the gap behind it
  kContiguous,          // neighbouring matches are one word
};

// `object`'s "behavior". `component` names its owner in errors.
absl::StatusOr<SplitBehavior> ParseSplitBehavior(const Json& object, absl::string_view component);

// Appends the words of [begin, end) to `words`. `matches` are ordered, disjoint and inside;
// `invert` makes the gaps the matches. Empty words are left out.
void SplitAtMatches(Range text, const std::vector<Range>& matches, SplitBehavior behavior,
                    bool invert, std::vector<Range>* words);

}  // namespace anabranch::tokenizer
