// What a query of words asks the full text search for. A pure function; any thread.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace anabranch {

// The query's words as an expression of the full text search: quoted, so that nothing in them is
// syntax, and any of them may occur. At most 256 of them; empty if there is none.
std::string AnyWord(absl::string_view query);

}  // namespace anabranch
