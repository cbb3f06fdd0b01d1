#include "service/retention_clock.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace anabranch {

absl::Duration SteadyNow() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

RetentionClock::RetentionClock(std::function<absl::Time()> system,
                               std::function<absl::Duration()> steady)
    : system_(std::move(system)),
      steady_(std::move(steady)),
      time_(system_()),
      at_(steady_()),
      doubted_(absl::ZeroDuration()) {}

absl::Time RetentionClock::Now() {
  const absl::Duration steady = steady_();
  const absl::Duration passed = std::max(steady - at_, absl::ZeroDuration());
  const absl::Time expected = time_ + passed, system = system_();
  at_ = steady;
  const bool ahead = system > expected + kSmallStep;
  doubted_ = ahead ? doubted_ + passed : absl::ZeroDuration();
  if (ahead && doubted_ < kDoubtFor) {
    time_ = expected;
  } else {
    time_ = system;
    doubted_ = absl::ZeroDuration();
  }
  return time_;
}

}  // namespace anabranch
