// The promise of canonical states: a sequence's logits depend on its tokens only, whatever else
// ran, however it was split, forked, captured and restored.
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/engine_harness.h"

namespace anabranch {
namespace {

using testing::HybridLayout;
using testing::Logits;
using testing::Outcome;
using testing::OutcomePtr;
using testing::RandomTokens;
using testing::Read;
using testing::RecurrentLayout;
using testing::StartGenerate;
using testing::StartRead;
using testing::StartScore;
using Harness = testing::Harness;

SamplingParams Warm(uint64_t seed) {
  SamplingParams sampling;
  sampling.temperature = 0.9f;
  sampling.seed = seed;
  return sampling;
}

std::vector<int32_t> Joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(EngineExactTest, TheFakeModelSeesEveryTokenAndItsPlace) {
  std::vector<int32_t> tokens = RandomTokens(300, 1);
  const std::vector<float> logits = Harness::Reference(tokens);
  for (const size_t changed : {0, 100, 290}) {
    std::vector<int32_t> other = tokens;
    other[changed] = (other[changed] + 1) % 39;
    EXPECT_NE(Harness::Reference(other), logits) << changed;
  }
}

TEST(EngineExactTest, InterleavedSequencesEqualEachAlone) {
  for (const StateLayout& layout : {HybridLayout(), RecurrentLayout()}) {
    EngineOptions options;
    options.max_prefill_rows = 40;
    options.max_prefill_rows_decoding = 20;
    options.max_decode_rows = 5;
    Harness h(options, layout);
    std::vector<SequencePtr> sequences;
    std::vector<std::vector<int32_t>> prompts;
    std::vector<OutcomePtr> reads, replies;
    for (int i = 0; i < 16; ++i) {
      prompts.push_back(RandomTokens(1 + 37 * i % 290, i));
      sequences.push_back(h.NewSequence());
    }
    for (int i = 0; i < 16; ++i) reads.push_back(StartRead(*h.engine, sequences[i], prompts[i]));
    for (int i = 0; i < 16; ++i) {
      ASSERT_TRUE(reads[i]->Wait().ok()) << reads[i]->status;
      replies.push_back(StartGenerate(*h.engine, sequences[i], 10 + i, Warm(i)));
    }
    for (int i = 0; i < 16; ++i) {
      ASSERT_TRUE(replies[i]->Wait().ok()) << replies[i]->status;
      EXPECT_EQ(replies[i]->tokens.size(), 10u + i);
      const std::vector<int32_t> all = Joined(prompts[i], replies[i]->tokens);
      EXPECT_EQ(h.engine->Tokens(sequences[i]), all);
      EXPECT_EQ(h.engine->Position(sequences[i]), static_cast<int64_t>(all.size()));
      EXPECT_EQ(Logits(*h.engine, sequences[i]), Harness::Reference(all, layout)) << i;
    }
  }
}

TEST(EngineExactTest, SampledTokensDoNotDependOnTheCompany) {
  const std::vector<int32_t> prompt = RandomTokens(20, 9);
  Harness alone;
  const auto expected = StartGenerate(*alone.engine, alone.Sequence(prompt), 30, Warm(4));
  ASSERT_TRUE(expected->Wait().ok());
  Harness h;
  const SequencePtr sequence = h.Sequence(prompt);
  std::vector<OutcomePtr> others;
  for (int i = 0; i < 8; ++i) {
    others.push_back(StartGenerate(*h.engine, h.Sequence(RandomTokens(5, i)), 40, Warm(i)));
  }
  const auto reply = StartGenerate(*h.engine, sequence, 30, Warm(4));
  ASSERT_TRUE(reply->Wait().ok());
  EXPECT_EQ(reply->tokens, expected->tokens);
  for (auto& other : others) EXPECT_TRUE(other->Wait().ok());
}

TEST(EngineExactTest, AThousandForksDivergeWithoutTouchingTheParent) {
  EngineOptions options;
  options.slots.num_slots = 40;
  Harness h(options);
  const std::vector<int32_t> prompt = RandomTokens(300, 5);
  const SequencePtr parent = h.Sequence(prompt);
  const std::vector<float> before = Logits(*h.engine, parent);
  std::vector<SequencePtr> forks;
  for (int i = 0; i < 1000; ++i) {
    auto fork = h.engine->Fork(parent);
    ASSERT_TRUE(fork.ok()) << fork.status();
    forks.push_back(*fork);
  }
  EXPECT_EQ(h.engine->stats().slots.slots_used, 1) << "forks copied state before any write";
  EXPECT_EQ(h.engine->stats().slots.pages_used, 2);
  for (int32_t i = 0; i < 1000; ++i) {
    ASSERT_TRUE(Read(*h.engine, forks[i], {i % 39, i / 39}).ok());
    if (i % 100 == 0) {
      EXPECT_EQ(Logits(*h.engine, forks[i]), Harness::Reference(Joined(prompt, {i % 39, i / 39})));
    }
    forks[i].reset();
  }
  EXPECT_EQ(h.engine->stats().slots.slots_used, 1);
  EXPECT_EQ(h.engine->stats().slots.pages_used, 2);
  EXPECT_EQ(Logits(*h.engine, parent), before);
  ASSERT_TRUE(Read(*h.engine, parent, {7}).ok());
  EXPECT_EQ(Logits(*h.engine, parent), Harness::Reference(Joined(prompt, {7})));
}

TEST(EngineExactTest, AForkOutlivesItsParent) {
  Harness h;
  const std::vector<int32_t> prompt = RandomTokens(260, 6);
  SequencePtr parent = h.Sequence(prompt);
  const SequencePtr fork = *h.engine->Fork(parent);
  ASSERT_TRUE(Read(*h.engine, parent, RandomTokens(30, 7)).ok());
  parent.reset();
  ASSERT_TRUE(Read(*h.engine, fork, {1, 2, 3}).ok());
  EXPECT_EQ(Logits(*h.engine, fork), Harness::Reference(Joined(prompt, {1, 2, 3})));
}

TEST(EngineExactTest, CaptureAndRestoreAtRandomPositionsContinueBitForBit) {
  const std::vector<int32_t> tokens = RandomTokens(600, 3);
  const std::vector<float> expected = Harness::Reference(tokens);
  std::mt19937 random(17);
  for (int round = 0; round < 20; ++round) {
    const int64_t cut = round == 0 ? 256 : 1 + random() % 599;
    const std::vector<int32_t> head(tokens.begin(), tokens.begin() + cut);
    const std::vector<int32_t> tail(tokens.begin() + cut, tokens.end());
    Harness first;
    const SequencePtr sequence = first.Sequence(head);
    auto image = first.engine->Capture(sequence);
    ASSERT_TRUE(image.ok()) << image.status();
    // Another process: only bytes survive.
    image->header = *ParseStateHeader(SerializeStateHeader(image->header));
    Harness second;
    auto restored = second.engine->Restore(*image, head);
    ASSERT_TRUE(restored.ok()) << restored.status();
    EXPECT_EQ(Logits(*second.engine, *restored), Logits(*first.engine, sequence));
    ASSERT_TRUE(Read(*second.engine, *restored, tail).ok());
    EXPECT_EQ(Logits(*second.engine, *restored), expected) << "cut at " << cut;
  }
}

TEST(EngineExactTest, RestoredAtTheEndGeneratesWithoutReading) {
  const std::vector<int32_t> prompt = RandomTokens(50, 3);
  Harness first;
  const SequencePtr sequence = first.Sequence(prompt);
  const StateImage image = *first.engine->Capture(sequence);
  const auto expected = StartGenerate(*first.engine, sequence, 20, Warm(1));
  ASSERT_TRUE(expected->Wait().ok());
  Harness second;
  const SequencePtr restored = *second.engine->Restore(image, prompt);
  const auto reply = StartGenerate(*second.engine, restored, 20, Warm(1));
  ASSERT_TRUE(reply->Wait().ok());
  EXPECT_EQ(reply->tokens, expected->tokens);
  EXPECT_EQ(second.engine->stats().tokens_read, 0);
}

TEST(EngineExactTest, CheckpointsStandExactlyOnTheGridAndContinueBitForBit) {
  const std::vector<int32_t> head = RandomTokens(70, 1), tail = RandomTokens(430, 2);
  const std::vector<int32_t> all = Joined(head, tail);
  EngineOptions options;
  options.max_prefill_rows = 50;
  Harness h(options);
  // A second reader changes how the first is split.
  const auto other = StartRead(*h.engine, h.NewSequence(), RandomTokens(300, 3));
  ReadWork work;
  work.sequence = h.Sequence(head);
  work.tokens = tail;
  work.checkpoint_every = 64;
  std::vector<std::pair<int64_t, StateImage>> images;
  work.on_checkpoint = [&](int64_t position, absl::StatusOr<StateImage> image) {
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_EQ(image->header.token_count, position);
    images.emplace_back(position, *std::move(image));
  };
  const SequencePtr sequence = work.sequence;
  ASSERT_TRUE(StartRead(*h.engine, std::move(work))->Wait().ok());
  std::vector<int64_t> positions;
  for (const auto& [position, image] : images) positions.push_back(position);
  EXPECT_THAT(positions, ::testing::ElementsAre(128, 192, 256, 320, 384, 448));
  for (const auto& [position, image] : images) {
    const SequencePtr restored = *h.engine->Restore(image, {all.begin(), all.begin() + position});
    ASSERT_TRUE(Read(*h.engine, restored, {all.begin() + position, all.end()}).ok());
    EXPECT_EQ(Logits(*h.engine, restored), Logits(*h.engine, sequence)) << position;
  }
  EXPECT_TRUE(other->Wait().ok());
}

TEST(EngineExactTest, GenerationReportsCheckpointsToo) {
  Harness h;
  GenerateWork work;
  work.sequence = h.Sequence(RandomTokens(10, 1));
  work.max_tokens = 22;  // ends at 32, which is on the grid and not reported
  work.sampling = Warm(3);
  work.checkpoint_every = 8;
  std::vector<int64_t> positions;
  work.on_checkpoint = [&](int64_t position, absl::StatusOr<StateImage> image) {
    EXPECT_TRUE(image.ok() && image->header.token_count == position && image->header.vocab == 40);
    positions.push_back(position);
  };
  ASSERT_TRUE(StartGenerate(*h.engine, std::move(work))->Wait().ok());
  EXPECT_THAT(positions, ::testing::ElementsAre(16, 24));
}

TEST(EngineExactTest, ScoresEqualTheLogitsOfReadingTokenByToken) {
  const std::vector<int32_t> head = RandomTokens(30, 1), tail = RandomTokens(90, 2);
  EngineOptions options;
  options.max_score_rows = 16;
  Harness h(options);
  const SequencePtr parent = h.Sequence(head);
  const auto score = StartScore(*h.engine, *h.engine->Fork(parent), tail);
  ASSERT_TRUE(score->Wait().ok());
  ASSERT_EQ(score->logprobs.size(), tail.size());
  const SequencePtr step = *h.engine->Fork(parent);
  for (size_t i = 0; i < tail.size(); ++i) {
    EXPECT_EQ(score->logprobs[i], TokenLogprobOf(h.engine->LastLogits(step), tail[i])) << i;
    ASSERT_TRUE(Read(*h.engine, step, {tail[i]}).ok());
  }
  EXPECT_EQ(h.engine->Position(parent), 30);
}

TEST(EngineExactTest, CaptureAndForkWhileOthersStep) {
  Harness h;
  const std::vector<int32_t> prompt = RandomTokens(200, 8);
  const SequencePtr still = h.Sequence(prompt);
  const StateImage expected = *h.engine->Capture(still);
  const auto busy = StartGenerate(*h.engine, h.Sequence({1}), 2000, Warm(1));
  const auto busy_fork = StartGenerate(*h.engine, *h.engine->Fork(still), 2000, Warm(2));
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 30; ++i) {
        auto image = h.engine->Capture(still);
        ASSERT_TRUE(image.ok()) << image.status();
        ASSERT_EQ(image->payload, expected.payload);
        ASSERT_EQ(image->kv_blocks, expected.kv_blocks);
        auto restored = h.engine->Restore(*image, prompt);
        ASSERT_TRUE(restored.ok()) << restored.status();
        ASSERT_TRUE(h.engine->Fork(still).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(busy->Wait().ok());
  EXPECT_TRUE(busy_fork->Wait().ok());
}

}  // namespace
}  // namespace anabranch
