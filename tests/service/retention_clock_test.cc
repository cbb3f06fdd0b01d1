// Clocks that jump: nothing is gone because a clock was wrong for a while.
#include "service/retention_clock.h"

#include <gtest/gtest.h>

namespace anabranch {
namespace {

class RetentionClockTest : public testing::Test {
 protected:
  // Time passes; the system's clock may be set meanwhile.
  void Pass(absl::Duration time) {
    system_ += time;
    steady_ += time;
  }

  absl::Time system_ = absl::FromUnixSeconds(1700000000);
  absl::Duration steady_ = absl::Hours(5);
  const absl::Time start_ = system_;
  RetentionClock clock_{[this] { return system_; }, [this] { return steady_; }};
};

TEST_F(RetentionClockTest, GoesWithTheSystem) {
  for (int i = 0; i < 100; ++i) {
    Pass(absl::Minutes(7));
    system_ += absl::Milliseconds(40);  // adjusted a little, as clocks are
    EXPECT_EQ(clock_.Now(), system_);
  }
}

TEST_F(RetentionClockTest, AJumpOfADayAheadThatIsTakenBackWasNeverSeen) {
  Pass(absl::Minutes(1));
  system_ += absl::Hours(24);
  for (int i = 0; i < 50; ++i) {
    Pass(absl::Minutes(1));
    EXPECT_LT(clock_.Now(), start_ + absl::Hours(1));
  }
  system_ -= absl::Hours(24);
  Pass(absl::Minutes(1));
  EXPECT_EQ(clock_.Now(), system_);
}

TEST_F(RetentionClockTest, AClockThatStaysAheadIsBelievedAfterAWhile) {
  system_ += absl::Hours(24);
  absl::Time now = clock_.Now();
  for (int i = 0; i < 70; ++i) {
    EXPECT_GE(clock_.Now(), now);
    now = clock_.Now();
    Pass(absl::Minutes(1));
  }
  EXPECT_EQ(clock_.Now(), system_);
}

TEST_F(RetentionClockTest, AClockThatIsSetBackIsBelievedAtOnce) {
  Pass(absl::Hours(2));
  EXPECT_EQ(clock_.Now(), system_);
  system_ -= absl::Hours(24);
  EXPECT_EQ(clock_.Now(), system_);
  Pass(absl::Hours(3));
  EXPECT_EQ(clock_.Now(), system_);
}

}  // namespace
}  // namespace anabranch
