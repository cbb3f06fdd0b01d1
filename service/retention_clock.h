// The time that states expire by. Goes with the system's clock, but a clock that jumps ahead is not
// believed at once: what would have lived another day must not be gone because a clock was wrong
// for a minute. A clock that is set back is believed: things only live longer by it.
//
// Thread rule: one thread.
#pragma once

#include <functional>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace anabranch {

// Time since some moment, of a clock that nobody sets.
absl::Duration SteadyNow();

class RetentionClock {
 public:
  explicit RetentionClock(std::function<absl::Time()> system = absl::Now,
                          std::function<absl::Duration()> steady = SteadyNow);

  absl::Time Now();

  // A clock that has been ahead by more than kSmallStep is believed after so long.
  static constexpr absl::Duration kDoubtFor = absl::Hours(1), kSmallStep = absl::Minutes(1);

 private:
  const std::function<absl::Time()> system_;
  const std::function<absl::Duration()> steady_;
  absl::Time time_;         // at `at_`
  absl::Duration at_;       // of the steady clock
  absl::Duration doubted_;  // how long the system's clock has been ahead
};

}  // namespace anabranch
