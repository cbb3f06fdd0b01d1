// Several engines as one: work spreads, every sequence is answered by the engine that holds it, and
// where it runs shows in no bit.
#include "runtime/engine_group.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/engine_harness.h"

namespace anabranch {
namespace {

using testing::FakeModel;
using testing::Gate;
using testing::Harness;
using ::testing::HasSubstr;
using testing::HybridLayout;
using testing::Logits;
using testing::OutcomePtr;
using testing::RandomTokens;
using testing::Read;
using testing::StartGenerate;
using testing::StartRead;

// Two engines of `slots` slots each.
struct Pair {
  explicit Pair(int32_t slots) {
    std::vector<EngineMember> members;
    for (const char* name : {"left", "right"}) {
      models.push_back(std::make_shared<FakeModel>());
      EngineOptions options;
      options.slots.num_slots = slots;
      options.slots.poison_released = true;
      options.valid_vocab = FakeModel::kPoison;
      members.push_back({name, *Engine::Create(models.back(), options)});
    }
    engine = *JoinEngines(std::move(members));
  }
  SequencePtr Sequence(const std::vector<int32_t>& tokens) {
    auto sequence = engine->NewSequence();
    EXPECT_TRUE(sequence.ok()) << sequence.status();
    EXPECT_TRUE(Read(*engine, *sequence, tokens).ok());
    return *std::move(sequence);
  }
  int32_t SlotsUsed(int member) const {
    return engine->member_stats()[member].stats.slots.slots_used;
  }

  std::vector<std::shared_ptr<FakeModel>> models;
  std::unique_ptr<Engine> engine;
};

TEST(EngineGroupTest, SessionsSpreadOverTheEngines) {
  Pair pair(8);
  std::vector<SequencePtr> held;
  for (int i = 0; i < 6; ++i) held.push_back(pair.Sequence({1, 2, i}));
  EXPECT_EQ(pair.SlotsUsed(0), 3);
  EXPECT_EQ(pair.SlotsUsed(1), 3);
  EXPECT_EQ(pair.engine->stats().slots.slots_used, 6);
  EXPECT_EQ(pair.engine->stats().tokens_read, 18);
}

TEST(EngineGroupTest, NewWorkGoesToTheIdleEngine) {
  Pair pair(8);
  // Left holds more, right is busy.
  const SequencePtr left = pair.Sequence({1}), right = pair.Sequence({2});
  ASSERT_NE(&pair.engine->HomeOf(left), &pair.engine->HomeOf(right));
  const SequencePtr more = *pair.engine->Fork(left);
  OutcomePtr busy;
  {
    Gate gate(*pair.models[1]);
    busy = StartRead(*pair.engine, right, {3});
    gate.WaitUntilEntered();
    const SequencePtr fresh = pair.Sequence(RandomTokens(30, 1));  // runs while right stands still
    EXPECT_EQ(&pair.engine->HomeOf(fresh), &pair.engine->HomeOf(left));
  }
  EXPECT_TRUE(busy->Wait().ok());
}

TEST(EngineGroupTest, AnEngineThatIsFullSendsNewSequencesToAnother) {
  Pair pair(2);
  std::vector<SequencePtr> held;
  for (int i = 0; i < 4; ++i) held.push_back(pair.Sequence({i}));
  EXPECT_EQ(pair.engine->NewSequence().status().code(), absl::StatusCode::kResourceExhausted);
  held.erase(held.begin() + 1);
  EXPECT_TRUE(pair.engine->NewSequence().ok());
}

TEST(EngineGroupTest, AForkSharesItsSlotAndLeavesOnlyAFullEngine) {
  Pair pair(2);
  const std::vector<int32_t> tokens = RandomTokens(300, 7);
  const SequencePtr source = pair.Sequence(tokens);
  const Engine* home = &pair.engine->HomeOf(source);
  const SequencePtr beside = *pair.engine->Fork(source);
  EXPECT_EQ(&pair.engine->HomeOf(beside), home);
  EXPECT_EQ(pair.engine->stats().slots.slots_used, 1);
  EXPECT_EQ(pair.engine->stats().slots.slots_owed, 1);

  ASSERT_TRUE(Read(*pair.engine, beside, {5}).ok());  // takes the second slot
  EXPECT_EQ(pair.engine->stats().slots.slots_owed, 0);
  const SequencePtr away = *pair.engine->Fork(source);
  EXPECT_NE(&pair.engine->HomeOf(away), home);
  EXPECT_EQ(Logits(*pair.engine, away), Logits(*pair.engine, source));
  std::vector<int32_t> longer = tokens;
  longer.push_back(5);
  ASSERT_TRUE(Read(*pair.engine, away, {5}).ok());
  EXPECT_EQ(Logits(*pair.engine, away), Logits(*pair.engine, beside));
  EXPECT_EQ(Logits(*pair.engine, away), Harness::Reference(longer));
  EXPECT_EQ(pair.engine->Tokens(away), longer);
}

TEST(EngineGroupTest, AStateOfOneEngineGoesOnInTheOther) {
  Pair pair(1);
  const std::vector<int32_t> tokens = RandomTokens(40, 3);
  SequencePtr first = pair.Sequence(tokens);
  const StateImage image = *pair.engine->Capture(first);
  const SequencePtr second = *pair.engine->Restore(image, tokens);
  EXPECT_NE(&pair.engine->HomeOf(first), &pair.engine->HomeOf(second));
  const OutcomePtr a = StartGenerate(*pair.engine, first, 12);
  const OutcomePtr b = StartGenerate(*pair.engine, second, 12);
  ASSERT_TRUE(a->Wait().ok());
  ASSERT_TRUE(b->Wait().ok());
  EXPECT_EQ(a->tokens, b->tokens);
  EXPECT_EQ(Logits(*pair.engine, first), Logits(*pair.engine, second));
}

TEST(EngineGroupTest, ASequenceOfAnotherEngineIsRefused) {
  Pair pair(2);
  Harness other;
  const SequencePtr foreign = other.Sequence({1});
  ReadWork work;
  work.sequence = foreign;
  work.tokens = {2};
  EXPECT_EQ(pair.engine->Submit(std::move(work)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pair.engine->Fork(foreign).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pair.engine->Capture(nullptr).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(EngineGroupTest, EnginesThatWouldDisagreeAreNotJoined) {
  EXPECT_EQ(JoinEngines({}).status().code(), absl::StatusCode::kInvalidArgument);
  std::vector<EngineMember> members;
  for (const char* fingerprint : {"one", "two"}) {
    members.push_back(
        {fingerprint,
         *Engine::Create(std::make_shared<FakeModel>(HybridLayout(), fingerprint), {})});
  }
  const auto joined = JoinEngines(std::move(members));
  EXPECT_EQ(joined.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(joined.status().message(), HasSubstr("different models"));
}

TEST(EngineGroupTest, OneEngineAloneNeedsNoGroup) {
  std::vector<EngineMember> members;
  members.push_back({"cpu", *Engine::Create(std::make_shared<FakeModel>(), {})});
  const Engine* alone = members[0].engine.get();
  const auto joined = JoinEngines(std::move(members));
  ASSERT_TRUE(joined.ok());
  EXPECT_EQ(joined->get(), alone);
}

}  // namespace
}  // namespace anabranch
