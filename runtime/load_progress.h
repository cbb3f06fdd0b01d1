// Telling how far a long load is.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace anabranch {

struct LoadProgress {
  absl::string_view phase;      // "reading weights" or "hashing weights"
  int64_t done = 0, total = 0;  // bytes of the files
};
using LoadProgressFn = std::function<void(const LoadProgress&)>;

// `report`, at most once a second; the first time after one second. `now` is the clock.
LoadProgressFn EverySecond(LoadProgressFn report, std::function<absl::Time()> now);

}  // namespace anabranch
