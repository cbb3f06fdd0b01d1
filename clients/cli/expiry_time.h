// When a state may go, as people write it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace anabranch::cli {

// "never" (the infinite future), a time from `now` on ("30d", "2w", "12h", "1h30m"), or a moment in
// RFC 3339 ("2030-01-31T12:00:00Z", "2030-01-31": its beginning in UTC). A usage error otherwise.
absl::StatusOr<absl::Time> ParseExpiry(const std::string& text, absl::Time now);

}  // namespace anabranch::cli
