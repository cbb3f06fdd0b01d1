#include "statestore/names.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace anabranch {
namespace {

bool IsNameStart(char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c); }
bool IsNameCharacter(char c) { return IsNameStart(c) || c == '.' || c == '_' || c == '-'; }

// Clients see the offending value, but never more than a line of it and never raw bytes.
absl::Status Invalid(absl::string_view field, absl::string_view value, absl::string_view allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " \"", absl::CHexEscape(value.substr(0, 80)),
                   value.size() > 80 ? "..." : "", "\" is not valid: ", allowed));
}

}  // namespace

absl::Status ValidateName(absl::string_view field, absl::string_view name) {
  constexpr absl::string_view kAllowed =
      "1 to 200 characters; segments of a-z, 0-9, '.', '_', '-', each at most 63 long and starting "
      "with a letter or digit, joined by '/'";
  if (name.empty() || name.size() > kMaxNameLength) return Invalid(field, name, kAllowed);
  for (absl::string_view segment : absl::StrSplit(name, '/')) {
    if (segment.empty() || segment.size() > kMaxNameSegmentLength ||
        !IsNameStart(segment.front()) ||
        !std::all_of(segment.begin(), segment.end(), IsNameCharacter)) {
      return Invalid(field, name, kAllowed);
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateNamePrefix(absl::string_view field, absl::string_view prefix) {
  const bool known = std::all_of(prefix.begin(), prefix.end(),
                                 [](char c) { return IsNameCharacter(c) || c == '/'; });
  if (prefix.size() > kMaxNameLength || !known) {
    return Invalid(field, prefix, "at most 200 characters of a-z, 0-9, '.', '_', '-', '/'");
  }
  return absl::OkStatus();
}

absl::Status ValidateStateId(absl::string_view field, absl::string_view id) {
  const bool valid = id.size() == 43 && id.substr(0, 3) == "st-" &&
                     std::all_of(id.begin() + 3, id.end(), [](char c) {
                       return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
                     });
  return valid ? absl::OkStatus() : Invalid(field, id, "\"st-\" and 40 lower-case hex digits");
}

absl::Status ValidateRequestId(absl::string_view field, absl::string_view request_id) {
  if (request_id.empty() || request_id.size() > kMaxRequestIdLength) {
    return Invalid(field, request_id, "1 to 64 characters");
  }
  return absl::OkStatus();
}

absl::Status ValidateTenant(absl::string_view tenant) {
  const bool control = std::any_of(tenant.begin(), tenant.end(), absl::ascii_iscntrl);
  if (tenant.empty() || tenant.size() > kMaxNameLength || control) {
    return Invalid("tenant", tenant, "1 to 200 characters without control characters");
  }
  return absl::OkStatus();
}

absl::Status ValidateBlobHash(absl::string_view field, absl::string_view hash) {
  const bool known = std::all_of(hash.begin(), hash.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == ':' || c == '-';
  });
  if (hash.empty() || hash.size() > 128 || !known) {
    return Invalid(field, hash, "1 to 128 letters, digits, '.', '_', ':', '-'");
  }
  return absl::OkStatus();
}

}  // namespace anabranch
