// What words are to the search, and what a query of words asks the full text search for. Pure
// functions; any thread.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace anabranch {

// The distinct words of a text in the order in which they come: letters and digits, in lower case
// as far as they are ASCII.
std::vector<std::string> WordsOf(absl::string_view text);

// The query's words as an expression of the full text search: quoted, so that nothing in them is
// syntax, and any of them may occur. At most 256 of them; empty if there is none.
std::string AnyWord(absl::string_view query);

}  // namespace anabranch
