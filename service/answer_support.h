// Whether an answer was read: how much of a question and its answer stands together in what a state
// has read. A model that was not told may answer with what it was told of something else, and be as
// sure as of the truth; but then no place of the text says so.
//
// Pure functions; any thread.
#pragma once

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace anabranch {

// How much each word says: a word that is not in it says nothing.
using WordWeights = absl::flat_hash_map<std::string, double>;

// 0 to 1: of the words of question and answer, by weight, what the best passage of the text has. A
// passage is a sentence with the one before it, if both are in one line. One without any word of
// the answer that the question does not have already bears nothing out; so does no text an answer
// that has no such word.
double AnswerSupport(absl::string_view question, absl::string_view answer, absl::string_view text,
                     const WordWeights& weights);

}  // namespace anabranch
