// What callers are promised: fairness, cancellation, limits, errors, and that no slot leaks.
#include "runtime/engine.h"

#include <random>
#include <set>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/engine_harness.h"
#include "tests/runtime/hooked_device.h"

namespace anabranch {
namespace {

using testing::FakeModel;
using testing::Gate;
using ::testing::HasSubstr;
using testing::HybridLayout;
using testing::OutcomePtr;
using testing::RandomTokens;
using testing::Read;
using testing::StartGenerate;
using testing::StartRead;
using testing::StartScore;
using Harness = testing::Harness;

constexpr auto kCancelled = absl::StatusCode::kCancelled;
constexpr auto kDeadline = absl::StatusCode::kDeadlineExceeded;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

ReadWork Reading(SequencePtr sequence, std::vector<int32_t> tokens) {
  ReadWork work;
  work.sequence = std::move(sequence);
  work.tokens = std::move(tokens);
  return work;
}
GenerateWork Generating(SequencePtr sequence, int64_t max_tokens = 5) {
  GenerateWork work;
  work.sequence = std::move(sequence);
  work.max_tokens = max_tokens;
  return work;
}

TEST(EngineTest, LongReadDoesNotStarveRunningStreams) {
  EngineOptions options;
  options.max_prefill_rows_decoding = 16;
  Harness h(options);
  const SequencePtr stream = h.Sequence({1});
  const size_t before = h.model->steps().size();
  OutcomePtr read, reply;
  bool read_was_done = false;  // when the stream's last token came, seen on the engine's thread
  {
    Gate gate(*h.model);
    read = StartRead(*h.engine, h.NewSequence(), RandomTokens(1, 1));
    gate.WaitUntilEntered();
    // Both arrive while the engine is in a step.
    read = StartRead(*h.engine, h.NewSequence(), RandomTokens(800, 1));
    GenerateWork stream_on = Generating(stream, 20);
    stream_on.on_token = [&](const GeneratedToken&) {
      read_was_done = read->done.HasBeenNotified();
      return true;
    };
    reply = StartGenerate(*h.engine, std::move(stream_on));
  }
  ASSERT_TRUE(reply->Wait().ok());
  EXPECT_FALSE(read_was_done);
  ASSERT_TRUE(read->Wait().ok());
  // Each of the stream's tokens came in the next step, beside at most 16 rows of the read.
  const auto steps = h.model->steps();
  for (size_t i = 0; i < 20; ++i) {
    const auto& parts = steps[before + 1 + i];
    ASSERT_EQ(parts.size(), 2u) << i;
    EXPECT_EQ(parts[0].rows, 16);
    EXPECT_EQ(parts[1].rows, 1);
  }
}

TEST(EngineTest, ShortReadFinishesWhileALongOneGoesOn) {
  Harness h;
  OutcomePtr first, long_read, short_read;
  {
    Gate gate(*h.model);
    first = StartRead(*h.engine, h.NewSequence(), {1});
    gate.WaitUntilEntered();
    long_read = StartRead(*h.engine, h.NewSequence(), RandomTokens(4000, 1));
    short_read = StartRead(*h.engine, h.NewSequence(), RandomTokens(20, 2));
  }
  ASSERT_TRUE(short_read->Wait().ok());
  ASSERT_TRUE(long_read->Wait().ok());
  // The first step after the gate ran all of the short read.
  EXPECT_EQ(h.model->steps()[1][1].rows, 20);
}

TEST(EngineTest, CancelTakesEffectWithinOneStep) {
  Harness h;
  GenerateWork work = Generating(h.Sequence({1, 2}), 1000);
  const SequencePtr sequence = work.sequence;
  work.options.cancel = std::make_shared<CancelToken>();
  work.on_token = [cancel = work.options.cancel](const GeneratedToken& token) {
    if (token.position == 5) cancel->Cancel();
    return true;
  };
  const size_t before = h.model->steps().size();
  const auto reply = StartGenerate(*h.engine, std::move(work));
  EXPECT_EQ(reply->Wait().code(), kCancelled);
  EXPECT_EQ(reply->finish, FinishReason::kNone);
  EXPECT_EQ(reply->tokens.size(), 4u);
  EXPECT_EQ(h.model->steps().size(), before + 4);
  // The sequence stands where it was and goes on.
  EXPECT_EQ(h.engine->Position(sequence), 6);
  const std::vector<int32_t> tokens = h.engine->Tokens(sequence);
  EXPECT_EQ(testing::Logits(*h.engine, sequence), Harness::Reference(tokens));
  EXPECT_TRUE(StartGenerate(*h.engine, sequence, 3)->Wait().ok());
}

TEST(EngineTest, CancelledReadLeavesAValidSequence) {
  EngineOptions options;
  options.max_prefill_rows = 50;
  Harness h(options);
  ReadWork work = Reading(h.NewSequence(), RandomTokens(1000, 1));
  const SequencePtr sequence = work.sequence;
  work.options.cancel = std::make_shared<CancelToken>();
  work.on_progress = [cancel = work.options.cancel](absl::Span<const int32_t>, int64_t position) {
    if (position == 150) cancel->Cancel();
  };
  EXPECT_EQ(StartRead(*h.engine, std::move(work))->Wait().code(), kCancelled);
  ASSERT_EQ(h.engine->Position(sequence), 150);
  std::vector<int32_t> head = RandomTokens(1000, 1);
  head.resize(150);
  EXPECT_EQ(testing::Logits(*h.engine, sequence), Harness::Reference(head));
}

TEST(EngineTest, CancelAndDeadlineReachQueuedWork) {
  Harness h;
  OutcomePtr blocker, cancelled, late, past;
  const SequencePtr sequence = h.NewSequence();
  {
    Gate gate(*h.model);
    blocker = StartRead(*h.engine, h.NewSequence(), {1});
    gate.WaitUntilEntered();
    ReadWork work = Reading(sequence, {1, 2, 3});
    work.options.cancel = std::make_shared<CancelToken>();
    auto cancel = work.options.cancel;
    cancelled = StartRead(*h.engine, std::move(work));
    ReadWork deadline = Reading(h.NewSequence(), {1, 2, 3});
    deadline.options.deadline = absl::Now() + absl::Milliseconds(1);
    late = StartRead(*h.engine, std::move(deadline));
    cancel->Cancel();
    absl::SleepFor(absl::Milliseconds(2));
  }
  EXPECT_EQ(cancelled->Wait().code(), kCancelled);
  EXPECT_EQ(late->Wait().code(), kDeadline);
  EXPECT_EQ(h.engine->Position(sequence), 0);
  EXPECT_EQ(cancelled->stats.tokens_read, 0);
  EXPECT_TRUE(blocker->Wait().ok());
}

TEST(EngineTest, DeadlineEndsARunningGeneration) {
  Harness h;
  GenerateWork work = Generating(h.Sequence({1}), 1 << 30);
  work.options.deadline = absl::Now() + absl::Milliseconds(30);
  EXPECT_EQ(StartGenerate(*h.engine, std::move(work))->Wait().code(), kDeadline);
}

TEST(EngineTest, QueueIsBounded) {
  EngineOptions options;
  options.max_queue = 3;
  Harness h(options);
  std::vector<OutcomePtr> outcomes;
  {
    Gate gate(*h.model);
    outcomes.push_back(StartRead(*h.engine, h.NewSequence(), {1}));
    gate.WaitUntilEntered();
    for (int i = 0; i < 3; ++i) outcomes.push_back(StartRead(*h.engine, h.NewSequence(), {1}));
    EXPECT_EQ(h.engine->stats().queued, 3);
    EXPECT_EQ(h.engine->stats().running, 1);
    const SequencePtr sequence = h.NewSequence();
    EXPECT_EQ(h.engine->Submit(Reading(sequence, {1})).code(), kExhausted);
    // The refused sequence is not held.
    EXPECT_TRUE(h.engine->Fork(sequence).ok());
  }
  for (auto& outcome : outcomes) EXPECT_TRUE(outcome->Wait().ok());
  EXPECT_EQ(h.engine->stats().queued, 0);
  EXPECT_EQ(h.engine->stats().running, 0);
}

TEST(EngineTest, BusySequenceIsRefused) {
  Harness h;
  const SequencePtr sequence = h.Sequence({1});
  OutcomePtr reply;
  {
    Gate gate(*h.model);
    reply = StartGenerate(*h.engine, sequence, 3);
    gate.WaitUntilEntered();
    EXPECT_EQ(h.engine->Submit(Reading(sequence, {1})).code(), kPrecondition);
    EXPECT_EQ(h.engine->Submit(Generating(sequence)).code(), kPrecondition);
    EXPECT_EQ(h.engine->Fork(sequence).status().code(), kPrecondition);
    EXPECT_EQ(h.engine->Capture(sequence).status().code(), kPrecondition);
  }
  EXPECT_TRUE(reply->Wait().ok());
  EXPECT_TRUE(Read(*h.engine, sequence, {1}).ok());
}

TEST(EngineTest, BadInputIsRefusedAndLeavesTheSequenceIdle) {
  EngineOptions options;
  options.max_context_tokens = 100;
  Harness h(options), other;
  const SequencePtr sequence = h.Sequence({1, 2});
  const auto read = [&](std::vector<int32_t> tokens) {
    return h.engine->Submit(Reading(sequence, std::move(tokens)));
  };
  EXPECT_EQ(read({FakeModel::kVocab}).code(), kInvalid);
  EXPECT_EQ(read({0, -1}).code(), kInvalid);
  EXPECT_THAT(read({0, -1}).message(), HasSubstr("token 1 has id -1"));
  EXPECT_EQ(read(std::vector<int32_t>(99, 1)).code(), kInvalid);
  EXPECT_EQ(h.engine->Submit(Reading(nullptr, {1})).code(), kInvalid);
  EXPECT_EQ(h.engine->Submit(Reading(other.NewSequence(), {1})).code(), kInvalid);
  ReadWork negative = Reading(sequence, {1});
  negative.checkpoint_every = -1;
  EXPECT_EQ(h.engine->Submit(std::move(negative)).code(), kInvalid);
  EXPECT_EQ(h.engine->Submit(Generating(sequence, 0)).code(), kInvalid);
  GenerateWork hot = Generating(sequence);
  hot.sampling.temperature = -1;
  EXPECT_EQ(h.engine->Submit(std::move(hot)).code(), kInvalid);
  GenerateWork stop = Generating(sequence);
  stop.stop_tokens = {FakeModel::kVocab};
  EXPECT_EQ(h.engine->Submit(std::move(stop)).code(), kInvalid);
  EXPECT_EQ(h.engine->Submit(Generating(h.NewSequence())).code(), kPrecondition);
  ScoreWork score;
  score.sequence = h.NewSequence();
  score.tokens = {1};
  EXPECT_EQ(h.engine->Submit(std::move(score)).code(), kPrecondition);
  EXPECT_TRUE(read(std::vector<int32_t>(98, 1)).ok());
}

TEST(EngineTest, RefusesOptionsAndImagesThatDoNotFit) {
  EngineOptions options;
  options.max_decode_rows = 0;
  EXPECT_EQ(Engine::Create(std::make_shared<FakeModel>(), options).status().code(), kInvalid);
  EXPECT_EQ(Engine::Create(nullptr, {}).status().code(), kInvalid);
  options = EngineOptions();
  options.valid_vocab = FakeModel::kVocab + 1;
  EXPECT_EQ(Engine::Create(std::make_shared<FakeModel>(), options).status().code(), kInvalid);

  Harness h;
  const StateImage image = *h.engine->Capture(h.Sequence({1, 2, 3}));
  EXPECT_EQ(h.engine->Restore(image, {1, 2}).status().code(), kInvalid);
  EXPECT_EQ(h.engine->Restore(image, {1, 2, 99}).status().code(), kInvalid);
  auto another = Engine::Create(std::make_shared<FakeModel>(HybridLayout(), "other-model"), {});
  EXPECT_EQ((*another)->Restore(image, {1, 2, 3}).status().code(), kPrecondition);
  const int32_t used = h.engine->stats().slots.slots_used;
  StateImage damaged = image;
  damaged.payload[3] ^= 1;
  EXPECT_EQ(h.engine->Restore(damaged, {1, 2, 3}).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(h.engine->stats().slots.slots_used, used);
}

TEST(EngineTest, EmptyWorkIsDoneWithoutAStep) {
  Harness h;
  const SequencePtr sequence = h.Sequence({1});
  const size_t steps = h.model->steps().size();
  EXPECT_TRUE(Read(*h.engine, sequence, {}).ok());
  EXPECT_TRUE(Read(*h.engine, h.NewSequence(), {}).ok());
  const auto score = StartScore(*h.engine, sequence, {});
  EXPECT_TRUE(score->Wait().ok());
  EXPECT_TRUE(score->logprobs.empty());
  EXPECT_EQ(h.model->steps().size(), steps);
}

TEST(EngineTest, GenerationEndsForEachReason) {
  EngineOptions options;
  options.max_context_tokens = 12;
  Harness h(options);
  auto reply = StartGenerate(*h.engine, h.Sequence({1, 2}), 4);
  ASSERT_TRUE(reply->Wait().ok());
  EXPECT_EQ(reply->finish, FinishReason::kMaxTokens);
  EXPECT_EQ(reply->stats.tokens_generated, 4);
  const std::vector<int32_t> tokens = reply->tokens;

  GenerateWork stop = Generating(h.Sequence({1, 2}), 10);
  const SequencePtr sequence = stop.sequence;
  stop.stop_tokens = {tokens[1]};
  bool saw_stop = false;
  stop.on_token = [&](const GeneratedToken& token) { return saw_stop = token.stop_token, true; };
  reply = StartGenerate(*h.engine, std::move(stop));
  ASSERT_TRUE(reply->Wait().ok());
  EXPECT_EQ(reply->finish, FinishReason::kStopToken);
  EXPECT_TRUE(saw_stop);
  // The stop token was read like any other.
  const std::vector<int32_t> all = h.engine->Tokens(sequence);
  EXPECT_EQ(all.back(), tokens[1]);
  EXPECT_EQ(testing::Logits(*h.engine, sequence), Harness::Reference(all));

  GenerateWork stopped = Generating(h.Sequence({1, 2}), 10);
  stopped.on_token = [](const GeneratedToken& token) { return token.position < 4; };
  reply = StartGenerate(*h.engine, std::move(stopped));
  ASSERT_TRUE(reply->Wait().ok());
  EXPECT_EQ(reply->finish, FinishReason::kStopped);
  EXPECT_EQ(reply->tokens.size(), 3u);

  GenerateWork limit = Generating(h.Sequence({1, 2}), 100);
  const SequencePtr full = limit.sequence;
  reply = StartGenerate(*h.engine, std::move(limit));
  ASSERT_TRUE(reply->Wait().ok());
  EXPECT_EQ(reply->finish, FinishReason::kContextLimit);
  EXPECT_EQ(reply->tokens.size(), 10u);
  reply = StartGenerate(*h.engine, full, 5);
  ASSERT_TRUE(reply->Wait().ok());
  EXPECT_EQ(reply->finish, FinishReason::kContextLimit);
  EXPECT_TRUE(reply->tokens.empty());
}

TEST(EngineTest, ProgressAndTokenAgree) {
  Harness h;
  GenerateWork work = Generating(h.Sequence({1, 2}), 6);
  absl::Mutex mutex;  // checkpoints come on a thread of their own
  std::vector<std::string> calls;
  int32_t last = -1;
  work.on_progress = [&](absl::Span<const int32_t> tokens, int64_t position) {
    ASSERT_EQ(tokens.size(), 1u);
    last = tokens[0];
    absl::MutexLock lock(&mutex);
    calls.push_back(absl::StrCat("read ", position));
  };
  work.on_token = [&](const GeneratedToken& token) {
    EXPECT_EQ(token.sampled.token, last);
    absl::MutexLock lock(&mutex);
    calls.push_back(absl::StrCat("token ", token.position));
    return true;
  };
  work.checkpoint_every = 4;
  std::vector<std::string> before_checkpoint;
  work.on_checkpoint = [&](int64_t position, absl::StatusOr<StateImage>) {
    EXPECT_EQ(position, 4);
    absl::MutexLock lock(&mutex);
    before_checkpoint = calls;
  };
  ASSERT_TRUE(StartGenerate(*h.engine, std::move(work))->Wait().ok());
  EXPECT_THAT(
      calls, ::testing::ElementsAre("read 3", "token 2", "read 4", "token 3", "read 5", "token 4",
                                    "read 6", "token 5", "read 7", "token 6", "read 8", "token 7"));
  EXPECT_THAT(before_checkpoint, ::testing::Contains("token 3"));
}

TEST(EngineTest, PagesRunningOutEndOneWorkAndKeepItsSequence) {
  EngineOptions options;
  options.slots.num_kv_pages = 3;
  Harness h(options);
  const SequencePtr big = h.Sequence(RandomTokens(500, 1));
  const SequencePtr small = h.Sequence({1, 2});
  const auto read = StartRead(*h.engine, big, RandomTokens(100, 2));
  const auto reply = StartGenerate(*h.engine, small, 20);
  EXPECT_EQ(read->Wait().code(), kExhausted);
  EXPECT_TRUE(reply->Wait().ok());
  EXPECT_EQ(h.engine->Position(big), 500);
  EXPECT_EQ(testing::Logits(*h.engine, big), Harness::Reference(RandomTokens(500, 1)));
  EXPECT_TRUE(Read(*h.engine, big, RandomTokens(12, 3)).ok());
}

TEST(EngineTest, SlotsRunningOutRefuseAForksWriteOnly) {
  EngineOptions options;
  options.slots.num_slots = 1;
  Harness h(options);
  SequencePtr parent = h.Sequence({1, 2});
  EXPECT_EQ(h.engine->NewSequence().status().code(), kExhausted);
  const SequencePtr fork = *h.engine->Fork(parent);
  EXPECT_EQ(Read(*h.engine, fork, {3}).code(), kExhausted);
  parent.reset();
  EXPECT_TRUE(Read(*h.engine, fork, {3}).ok());
  EXPECT_EQ(testing::Logits(*h.engine, fork), Harness::Reference({1, 2, 3}));
}

TEST(EngineTest, FailedStepBreaksItsSequencesOnly) {
  Harness h;
  const SequencePtr bystander = h.Sequence({5, 6});
  const SequencePtr victim = h.Sequence({1, 2});
  h.model->set_hook([](const auto&) { return absl::InternalError("device fault"); });
  const absl::Status status = Read(*h.engine, victim, {3});
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("device fault"));
  h.model->set_hook(nullptr);
  EXPECT_EQ(h.engine->Submit(Reading(victim, {3})).code(), kPrecondition);
  EXPECT_EQ(h.engine->Capture(victim).status().code(), kPrecondition);
  EXPECT_EQ(h.engine->Fork(victim).status().code(), kPrecondition);
  EXPECT_TRUE(Read(*h.engine, bystander, {7}).ok());
  EXPECT_EQ(testing::Logits(*h.engine, bystander), Harness::Reference({5, 6, 7}));
}

TEST(EngineTest, ALostDeviceEndsAllWorkForGood) {
  const auto device = std::make_shared<testing::HookedDevice>();
  const auto model = std::make_shared<FakeModel>();
  model->set_device(device);
  const auto engine = *Engine::Create(model, {});
  const SequencePtr first = *engine->NewSequence(), second = *engine->NewSequence();
  ASSERT_TRUE(Read(*engine, first, {1}).ok());
  ASSERT_TRUE(Read(*engine, second, {2}).ok());
  EXPECT_TRUE(engine->health().ok());
  const absl::Status lost = absl::UnavailableError("the GPU is lost");
  model->set_hook([](const auto&) { return absl::InternalError("illegal address"); });
  device->set_health(lost);
  EXPECT_EQ(Read(*engine, first, {3}), lost);
  EXPECT_EQ(engine->health(), lost);
  EXPECT_EQ(engine->Submit(Reading(second, {3})), lost);
}

TEST(EngineTest, LogitsThatAreNotFiniteAreNeverSampled) {
  Harness h;
  const SequencePtr sequence = h.Sequence({1, 2});
  const SequencePtr good = h.Sequence({3});
  OutcomePtr bad, reply;
  {
    Gate gate(*h.model);
    reply = StartGenerate(*h.engine, good, 10);
    gate.WaitUntilEntered();
    bad = StartRead(*h.engine, sequence, {FakeModel::kPoison});
  }
  EXPECT_EQ(bad->Wait().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(bad->status.message(), HasSubstr("not finite"));
  EXPECT_EQ(h.engine->Submit(Generating(sequence)).code(), kPrecondition);
  EXPECT_EQ(h.engine->Position(sequence), 2);
  EXPECT_TRUE(reply->Wait().ok());
}

TEST(EngineTest, DestructionEndsEverythingWithCancelled) {
  auto h = std::make_unique<Harness>();
  const SequencePtr outlives = h->Sequence({1, 2});
  const auto running = StartGenerate(*h->engine, h->Sequence({1}), 1 << 30);
  const auto reading = StartRead(*h->engine, h->NewSequence(), RandomTokens(100000, 1));
  h.reset();
  EXPECT_EQ(running->Wait().code(), kCancelled);
  EXPECT_EQ(reading->Wait().code(), kCancelled);
}

TEST(EngineTest, DoneMaySubmitTheNextWorkOfItsSequence) {
  Harness h;
  const SequencePtr sequence = h.NewSequence();
  absl::Notification finished;
  ReadWork work = Reading(sequence, {1, 2, 3});
  work.on_done = [&](absl::Status status, const WorkStats&) {
    EXPECT_TRUE(status.ok());
    GenerateWork next = Generating(sequence, 3);
    next.on_done = [&](absl::Status status, const WorkStats&, FinishReason) {
      EXPECT_TRUE(status.ok());
      finished.Notify();
    };
    EXPECT_TRUE(h.engine->Submit(std::move(next)).ok());
  };
  ASSERT_TRUE(h.engine->Submit(std::move(work)).ok());
  finished.WaitForNotification();
  EXPECT_EQ(h.engine->Position(sequence), 6);
}

TEST(EngineTest, StatsCountWhatWasDone) {
  Harness h;
  const SequencePtr sequence = h.Sequence(RandomTokens(700, 1));
  ASSERT_TRUE(StartGenerate(*h.engine, sequence, 9)->Wait().ok());
  const EngineStats stats = h.engine->stats();
  EXPECT_EQ(stats.tokens_read, 700);
  EXPECT_EQ(stats.tokens_generated, 9);
  EXPECT_EQ(stats.rows, 709);
  EXPECT_EQ(stats.steps, 2 + 9);
  EXPECT_EQ(stats.slots.slots_used, 1);
  EXPECT_EQ(stats.slots.pages_used, 3);
  EXPECT_GT(stats.busy, absl::ZeroDuration());
}

// Threads do everything at once; afterwards every slot and page is free, and no work ever saw the
// poison of a released slot (its logits would not be finite: INTERNAL).
TEST(EngineTest, RandomUseFromManyThreadsLeaksNothing) {
  EngineOptions options;
  options.slots.num_slots = 12;
  options.slots.num_kv_pages = 24;
  options.max_prefill_rows = 32;
  options.max_decode_rows = 4;
  Harness h(options);
  const auto client = [&](uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<SequencePtr> held;
    for (int i = 0; i < 150; ++i) {
      const size_t pick = held.empty() ? 0 : random() % held.size();
      const int action = random() % 8;
      if (held.empty() || action == 0) {
        auto sequence = h.engine->NewSequence();
        if (sequence.ok()) held.push_back(*sequence);
      } else if (action == 1) {
        held.erase(held.begin() + pick);
      } else if (action == 2) {
        auto fork = h.engine->Fork(held[pick]);
        ASSERT_TRUE(fork.ok()) << fork.status();
        held.push_back(*fork);
      } else if (action == 3) {
        auto image = h.engine->Capture(held[pick]);
        ASSERT_TRUE(image.ok()) << image.status();
        auto restored = h.engine->Restore(*image, h.engine->Tokens(held[pick]));
        if (restored.ok()) held.push_back(*restored);
      } else if (action == 4 && h.engine->Position(held[pick]) > 0) {
        GenerateWork work = Generating(held[pick], 1 + random() % 20);
        work.options.cancel = std::make_shared<CancelToken>();
        auto cancel = work.options.cancel;
        const auto reply = StartGenerate(*h.engine, std::move(work));
        if (random() % 2) cancel->Cancel();
        ASSERT_NE(reply->Wait().code(), absl::StatusCode::kInternal) << reply->status;
      } else {
        const absl::Status status =
            Read(*h.engine, held[pick], RandomTokens(1 + random() % 80, seed + i));
        ASSERT_TRUE(status.ok() || status.code() == kExhausted) << status;
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) threads.emplace_back(client, 100 * t);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(h.engine->stats().slots.slots_used, 0);
  EXPECT_EQ(h.engine->stats().slots.pages_used, 0);
}

}  // namespace
}  // namespace anabranch
