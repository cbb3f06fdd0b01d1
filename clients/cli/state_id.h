// Telling state ids from names of refs.
#pragma once

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace anabranch::cli {

// "st-" and 40 hex digits. A ref may not be named so.
inline bool LooksLikeStateId(absl::string_view id) {
  return id.size() == 43 && absl::StartsWith(id, "st-") &&
         std::all_of(id.begin() + 3, id.end(), absl::ascii_isxdigit);
}

}  // namespace anabranch::cli
