// Errors with a stable reason. Inside the process an error is an absl::Status; its reason and
// metadata travel in a payload as google.rpc.ErrorInfo, and ToGrpcStatus puts them on the wire.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/error_details.pb.h"

namespace anabranch {

inline constexpr char kErrorDomain[] = "anabranch";

using ErrorMetadata = std::vector<std::pair<std::string, std::string>>;

// A status with a reason ("SESSION_BUSY") and metadata ({"session_id", id}).
absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view reason,
                             absl::string_view message, const ErrorMetadata& metadata = {});

// INVALID_ARGUMENT that names the field: reason INVALID_FIELD, metadata "field".
absl::Status InvalidField(absl::string_view field, absl::string_view what);

// INVALID_ARGUMENT for a value beyond a limit: reason LIMIT_EXCEEDED, metadata "field", "limit".
absl::Status LimitExceeded(absl::string_view field, int64_t value, int64_t limit);

// The reason that `status` carries; statuses made elsewhere get the name of their code.
google::rpc::ErrorInfo ErrorInfoOf(const absl::Status& status);

// Adds a reason to a status that has none; OK and statuses with a reason pass unchanged.
absl::Status WithReason(absl::Status status, absl::string_view reason);

// A status of a library write with its reason: LIBRARY_READ_ONLY (UNAVAILABLE), QUOTA_EXCEEDED
// (RESOURCE_EXHAUSTED; metadata "quota", "used", "limit"), or LIBRARY_FULL when the disk is the
// cause.
absl::Status WriteError(const absl::Status& status);

}  // namespace anabranch
