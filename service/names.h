// Names that clients choose: session ids, ref names, labels, request ids. The grammar is the
// library's (statestore/names.h); here its errors get the reason and field that clients see.
#pragma once

#include <google/protobuf/map.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "statestore/state_store.h"

namespace anabranch {

// INVALID_ARGUMENT names `field` and the rule that `name` breaks.
absl::Status CheckName(absl::string_view field, absl::string_view name);
absl::Status CheckRequestId(absl::string_view request_id);
absl::StatusOr<Labels> ParseLabels(const google::protobuf::Map<std::string, std::string>& labels);

// "st-" and 40 hex digits: a state id, which no ref is taken for.
bool IsStateId(absl::string_view name);

// A ref to set: a name that is no state id.
absl::Status CheckRefName(absl::string_view field, absl::string_view name);
// What a request expects of a ref, as the library wants it: "" nothing (nullopt), "-" that the ref
// does not exist (""), otherwise a state id.
std::optional<std::string> ExpectedRefState(const std::string& expected);

// A fresh session id, "s-" and 16 hex digits.
std::string RandomSessionId();

}  // namespace anabranch
