// JSON from files, without the parser's silent tolerance: a key that occurs twice in one object,
// nesting beyond 32 levels and text after the value are errors, never exceptions.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace anabranch {

// INVALID_ARGUMENT says what is wrong.
absl::StatusOr<nlohmann::json> ParseStrictJson(absl::string_view text);

// The text with bare Infinity, -Infinity and NaN tokens (which Python writes) replaced by the
// objects {"__float__": "Infinity"} that newer writers use. Strings are left alone.
std::string ReplaceBareFloats(absl::string_view text);

}  // namespace anabranch
