#include "clients/cli/expiry_time.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "clients/cli/exit_code.h"

namespace anabranch::cli {

absl::StatusOr<absl::Time> ParseExpiry(const std::string& text, absl::Time now) {
  if (text == "never") return absl::InfiniteFuture();
  absl::Duration duration;
  for (const auto& [unit, hours] : {std::pair("d", 24), std::pair("w", 7 * 24)}) {
    absl::string_view number = text;
    double count = 0;
    if (absl::ConsumeSuffix(&number, unit) && absl::SimpleAtod(number, &count) && count >= 0) {
      return now + count * absl::Hours(hours);
    }
  }
  if (absl::ParseDuration(text, &duration) && duration >= absl::ZeroDuration()) {
    return now + duration;
  }
  absl::Time time;
  std::string problem;
  for (const char* format : {"%Y-%m-%dT%H:%M:%E*S%Ez", "%Y-%m-%d"}) {
    if (absl::ParseTime(format, text, &time, &problem)) return time;
  }
  return UsageError(absl::StrCat("'", text, "' is no time: 30d, 12h, 2030-01-31T12:00:00Z, never"));
}

}  // namespace anabranch::cli
