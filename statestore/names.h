// The grammar of names that clients choose, in one place: session ids, ref names, state ids,
// request ids, tenants and blob hashes. Each function returns OK or INVALID_ARGUMENT that names the
// field and what is allowed. They look at bytes only and never at the library.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace anabranch {

inline constexpr size_t kMaxNameLength = 200;
inline constexpr size_t kMaxNameSegmentLength = 63;
inline constexpr size_t kMaxRequestIdLength = 64;

// Session ids and ref names: 1 to 200 characters; segments of lower-case letters, digits, '.', '_'
// and '-', each at most 63 long and starting with a letter or digit, joined by '/'.
absl::Status ValidateName(absl::string_view field, absl::string_view name);

// The start of a name, for listings: at most 200 characters of those that names are made of.
absl::Status ValidateNamePrefix(absl::string_view field, absl::string_view prefix);

// "st-" and 40 lower-case hex digits.
absl::Status ValidateStateId(absl::string_view field, absl::string_view id);

// 1 to 64 characters, any.
absl::Status ValidateRequestId(absl::string_view field, absl::string_view request_id);

// 1 to 200 characters without control characters.
absl::Status ValidateTenant(absl::string_view tenant);

// 1 to 128 letters, digits, '.', '_', ':' and '-'; the store does not care which hash it is.
absl::Status ValidateBlobHash(absl::string_view field, absl::string_view hash);

}  // namespace anabranch
