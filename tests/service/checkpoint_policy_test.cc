// Which states a session keeps as it grows.
#include "service/checkpoint_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

using testing::ElementsAre;

LineState At(int64_t position, CaptureReason kind = CaptureReason::kGrid) {
  return {absl::StrCat("st-", position), position, kind, 1000};
}

std::vector<int64_t> Positions(const std::vector<LineState>& line) {
  std::vector<int64_t> positions;
  for (const LineState& state : line) positions.push_back(state.position);
  return positions;
}

// What is left of a grid when the session has grown step by step.
std::vector<LineState> Grown(const CheckpointPolicy& policy, int64_t every, int64_t head) {
  std::vector<LineState> line;
  for (int64_t position = every; position <= head; position += every) {
    line.push_back(At(position));
    ThinLine(policy, every, position, &line);
  }
  ThinLine(policy, every, head, &line);
  return line;
}

TEST(ThinLineTest, AboutTheLogarithmStaysAndGoingBackCostsAboutWhatItGoesBack) {
  for (const int64_t every : {16, 100}) {
    for (const int64_t steps : {1, 2, 3, 7, 8, 63, 64, 65, 1000}) {
      const int64_t head = steps * every + every / 2;
      const std::vector<LineState> line = Grown({}, every, head);
      EXPECT_LE(static_cast<int>(line.size()), 2 * absl::bit_width(uint64_t(steps)) + 2) << steps;
      for (int64_t target = every; target <= head; target += every / 4) {
        int64_t base = 0;
        for (const LineState& state : line) {
          if (state.position <= target) base = state.position;
        }
        EXPECT_LE(target - base, head - target + 2 * every) << target << " of " << head;
      }
    }
  }
}

TEST(ThinLineTest, GrowingGivesTheSameAsThinningOnce) {
  for (int64_t steps = 1; steps < 300; ++steps) {
    std::vector<LineState> at_once;
    for (int64_t i = 1; i <= steps; ++i) at_once.push_back(At(i * 32));
    ThinLine({}, 32, steps * 32, &at_once);
    EXPECT_EQ(Positions(Grown({}, 32, steps * 32)), Positions(at_once)) << steps;
  }
}

TEST(ThinLineTest, TurnEndsStayUnlessThePolicySaysOtherwise) {
  std::vector<LineState> line;
  for (int64_t i = 1; i <= 64; ++i) line.push_back(At(i * 10, CaptureReason::kTurn));
  std::vector<LineState> marks = line;
  EXPECT_TRUE(ThinLine({}, 10, 645, &line).empty());
  CheckpointPolicy policy;
  policy.thin_turn_ends = true;
  EXPECT_GT(ThinLine(policy, 10, 645, &line).size(), 40u);
  policy.max_states = 1;
  for (LineState& mark : marks) mark.kind = CaptureReason::kMark;
  EXPECT_TRUE(ThinLine(policy, 10, 645, &marks).empty());
}

TEST(ThinLineTest, LimitsMakeTheGridCoarserAndTheOldestGoesLast) {
  std::vector<LineState> all;
  for (int64_t i = 1; i <= 32; ++i) all.push_back(At(i * 100));
  CheckpointPolicy policy;
  policy.keep_grid = true;
  std::vector<LineState> line = all;
  EXPECT_TRUE(ThinLine(policy, 100, 3200, &line).empty());
  policy.max_states = 8;
  line = all;
  const std::vector<std::string> thinned = ThinLine(policy, 100, 3200, &line);
  EXPECT_EQ(thinned.size() + line.size(), 32u);
  EXPECT_LE(line.size(), 9u);  // and the head
  EXPECT_EQ(line.back().position, 3200);
  policy.max_states = 0;
  policy.max_bytes = 2500;  // two states
  EXPECT_FALSE(ThinLine(policy, 100, 3200, &line).empty());
  EXPECT_LE(line.size(), 3u);
  policy.max_bytes = 1;
  ThinLine(policy, 100, 3200, &line);
  EXPECT_THAT(Positions(line), ElementsAre(3200));
}

TEST(CheckpointPolicyTest, WhatTheApiSaysComesBack) {
  v1::CheckpointPolicy policy;
  policy.set_skip_turn_ends(true);
  policy.set_every(64);
  policy.set_thinning(v1::THINNING_NONE);
  policy.set_thin_turn_ends(true);
  policy.set_max_states(5);
  policy.set_max_bytes(6);
  const auto parsed = ParseCheckpointPolicy(policy);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(ToProto(*parsed).SerializeAsString(), policy.SerializeAsString());
  EXPECT_EQ(*ParseCheckpointPolicy(v1::CheckpointPolicy()), CheckpointPolicy());
  for (const int64_t every : {-2, 1, 15, (1 << 24) + 1}) {
    policy.set_every(every);
    EXPECT_FALSE(ParseCheckpointPolicy(policy).ok()) << every;
  }
  policy.set_every(16);
  policy.set_max_bytes(-1);
  EXPECT_FALSE(ParseCheckpointPolicy(policy).ok());
}

}  // namespace
}  // namespace anabranch
