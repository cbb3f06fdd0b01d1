#include "runtime/load_progress.h"

#include <utility>

namespace anabranch {

LoadProgressFn EverySecond(LoadProgressFn report, std::function<absl::Time()> now) {
  const absl::Time start = now();
  return [report = std::move(report), now = std::move(now),
          last = start](const LoadProgress& progress) mutable {
    const absl::Time time = now();
    if (time - last < absl::Seconds(1)) return;
    last = time;
    report(progress);
  };
}

}  // namespace anabranch
