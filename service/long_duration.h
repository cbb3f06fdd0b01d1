// Times as people write them for retention.
#pragma once

#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace anabranch {

// "30d", "2w", what absl::ParseDuration reads ("1h30m", "90s"), "0" or "never" (infinite). nullopt
// for anything else, and for negative times.
inline std::optional<absl::Duration> ParseLongDuration(absl::string_view text) {
  absl::Duration duration;
  if (text == "never") return absl::InfiniteDuration();
  for (const auto& [unit, hours] : {std::pair("d", 24), std::pair("w", 7 * 24)}) {
    absl::string_view number = text;
    double count = 0;
    if (absl::ConsumeSuffix(&number, unit) && absl::SimpleAtod(number, &count) && count >= 0) {
      return count * absl::Hours(hours);
    }
  }
  if (!absl::ParseDuration(text, &duration) || duration < absl::ZeroDuration()) return {};
  return duration;
}

}  // namespace anabranch
