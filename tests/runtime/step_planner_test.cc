#include "runtime/step_planner.h"

#include <map>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace anabranch {
namespace {

using Shares = std::map<uint64_t, int32_t>;  // rows by id

Shares Plan(StepPlanner& planner, const std::vector<StepCandidate>& candidates) {
  Shares shares;
  size_t next = 0;
  for (const StepShare& share : planner.Plan(candidates)) {
    EXPECT_GE(share.index, next) << "shares are not in order";
    EXPECT_GE(share.rows, 1);
    next = share.index + 1;
    shares[candidates[share.index].id] = share.rows;
  }
  return shares;
}

StepCandidate Decode(uint64_t id) { return {id, true, false, 1}; }
StepCandidate Reader(uint64_t id, int64_t rows) { return {id, false, false, rows}; }
StepCandidate Scorer(uint64_t id, int64_t rows) { return {id, false, true, rows}; }

TEST(StepPlannerTest, NothingToDoIsAnEmptyStep) {
  StepPlanner planner({});
  EXPECT_TRUE(planner.Plan({}).empty());
}

TEST(StepPlannerTest, AReadAloneGetsTheWholeBudget) {
  StepPlanner planner({});
  EXPECT_EQ(Plan(planner, {Reader(1, 10000)}), (Shares{{1, 512}}));
  EXPECT_EQ(Plan(planner, {Reader(1, 3)}), (Shares{{1, 3}}));
}

TEST(StepPlannerTest, ReadsGetLessWhileSomethingGenerates) {
  StepPlanner planner({});
  EXPECT_EQ(Plan(planner, {Reader(1, 10000), Decode(2)}), (Shares{{1, 128}, {2, 1}}));
}

TEST(StepPlannerTest, ShortReadsAdvanceBesideALongOne) {
  StepPlanner planner({});
  EXPECT_EQ(Plan(planner, {Reader(1, 10000), Reader(2, 5), Reader(3, 10000)}),
            (Shares{{1, 512 - 5 - 64}, {2, 5}, {3, 64}}));
}

TEST(StepPlannerTest, EveryReaderGetsItsTurn) {
  StepPlanner planner({});
  std::vector<StepCandidate> readers;
  for (uint64_t id = 1; id <= 10; ++id) readers.push_back(Reader(id, 100000));
  std::map<uint64_t, int> turns;
  for (int step = 0; step < 9; ++step) {
    int32_t rows = 0;
    for (const auto& [id, share] : Plan(planner, readers)) {
      ++turns[id];
      rows += share;
    }
    EXPECT_EQ(rows, 512);
  }
  for (uint64_t id = 2; id <= 10; ++id) EXPECT_EQ(turns[id], 3) << id;
  EXPECT_EQ(turns[1], 9);
}

TEST(StepPlannerTest, RowsNobodyWantsGoOnInOrderOfArrival) {
  StepPlanner planner({});
  EXPECT_EQ(Plan(planner, {Reader(1, 10), Reader(2, 1000), Reader(3, 1000)}),
            (Shares{{1, 10}, {2, 512 - 10 - 64}, {3, 64}}));
}

TEST(StepPlannerTest, TheOldestAdvancesEvenWithATinyBudget) {
  for (const int32_t rows : {1, 2, 3, 4, 7, 8}) {
    StepPlanner planner({64, rows, rows, 128});
    for (int step = 0; step < 5; ++step) {
      const Shares shares = Plan(
          planner, {Reader(1, 100), Reader(2, 100), Reader(3, 100), Reader(4, 100), Decode(5)});
      EXPECT_GE(shares.count(1), 1u) << rows;
      EXPECT_EQ(shares.count(5), 1u);
      int32_t sum = 0;
      for (const auto& [id, share] : shares) sum += id == 5 ? 0 : share;
      EXPECT_EQ(sum, rows);
    }
  }
}

TEST(StepPlannerTest, MoreGeneratingWorksThanRowsTakeTurns) {
  StepPlanner planner({4, 512, 128, 128});
  std::vector<StepCandidate> decoders;
  for (uint64_t id = 1; id <= 6; ++id) decoders.push_back(Decode(id));
  std::map<uint64_t, int> turns;
  for (int step = 0; step < 6; ++step) {
    const Shares shares = Plan(planner, decoders);
    EXPECT_EQ(shares.size(), 4u);
    for (const auto& [id, share] : shares) turns[id] += share;
  }
  for (uint64_t id = 1; id <= 6; ++id) EXPECT_EQ(turns[id], 4) << id;
  // The rotation goes on when works come and go.
  decoders.erase(decoders.begin(), decoders.begin() + 3);
  EXPECT_EQ(Plan(planner, decoders).size(), 3u);
}

TEST(StepPlannerTest, ScoredRowsStayWithinTheirOwnBound) {
  StepPlanner planner({64, 512, 128, 100});
  const Shares shares = Plan(planner, {Scorer(1, 1000), Scorer(2, 1000), Reader(3, 1000)});
  EXPECT_EQ(shares.at(1) + (shares.count(2) ? shares.at(2) : 0), 100);
  EXPECT_EQ(shares.at(3), 412);
}

}  // namespace
}  // namespace anabranch
