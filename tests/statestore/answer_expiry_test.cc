// Request ids are remembered for a day, no longer: on a clock of our own.
#include "statestore/apply_mutation.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

class EmptyReader : public KeyValueReader {
 public:
  absl::StatusOr<std::optional<std::string>> Get(Family, absl::string_view) const override {
    return std::optional<std::string>();
  }
  absl::Status Scan(Family, absl::string_view, absl::string_view, Visitor) const override {
    return absl::OkStatus();
  }
};

class AnswerExpiryTest : public testing::Test {
 protected:
  absl::Status Answer(const std::string& request, absl::Duration at) {
    ApplyContext context{changes_, hasher_, absl::FromUnixSeconds(1700000000) + at, 1};
    return Apply(PutAnswer{kTenant, request, "answer"}, context);
  }
  absl::Status Sweep(absl::Duration at, int limit = 100) {
    ApplyContext context{changes_, hasher_, absl::FromUnixSeconds(1700000000) + at, 1};
    return DropOldAnswers(context, limit);
  }
  // Keys that are left: two for each answer.
  int Keys() const {
    int count = 0;
    for (const auto& [key, value] : changes_.changes(Family::kAnswers)) count += value.has_value();
    return count;
  }

  const EmptyReader nothing_;
  Overlay changes_{nothing_};
  const PrefixHasher hasher_{std::string(PrefixHasher::kKeyBytes, 'k')};
};

TEST_F(AnswerExpiryTest, SweepDropsAnswersOlderThanADayAndNoOthers) {
  ASSERT_EQ(Answer("old", absl::ZeroDuration()), absl::OkStatus());
  ASSERT_EQ(Answer("young", absl::Hours(2)), absl::OkStatus());
  ASSERT_EQ(Sweep(absl::Hours(23)), absl::OkStatus());
  EXPECT_EQ(Keys(), 4);
  ASSERT_EQ(Sweep(absl::Hours(25)), absl::OkStatus());
  EXPECT_EQ(Keys(), 2);
  ASSERT_EQ(Sweep(absl::Hours(27)), absl::OkStatus());
  EXPECT_EQ(Keys(), 0);
}

TEST_F(AnswerExpiryTest, ExpiredRequestIdMayBeUsedAgainBeforeTheSweep) {
  ASSERT_EQ(Answer("id", absl::ZeroDuration()), absl::OkStatus());
  EXPECT_TRUE(absl::IsAlreadyExists(Answer("id", absl::Hours(23))));
  EXPECT_EQ(Answer("id", absl::Hours(25)), absl::OkStatus());
  EXPECT_EQ(Keys(), 2);
  ASSERT_EQ(Sweep(absl::Hours(26)), absl::OkStatus());
  EXPECT_EQ(Keys(), 2);
}

TEST_F(AnswerExpiryTest, OneSweepIsBounded) {
  for (char c = 'a'; c < 'k'; ++c) {
    ASSERT_EQ(Answer(std::string(1, c), absl::ZeroDuration()), absl::OkStatus());
  }
  ASSERT_EQ(Sweep(absl::Hours(30), 4), absl::OkStatus());
  EXPECT_EQ(Keys(), 12);
}

}  // namespace
}  // namespace anabranch
