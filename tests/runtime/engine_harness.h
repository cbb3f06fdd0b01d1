// Blocking calls on an Engine, for tests.
#pragma once

#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"
#include "runtime/engine.h"
#include "tests/runtime/fake_model.h"

namespace anabranch::testing {

// Of the ids below `vocab`: a model's description has its own.
inline std::vector<int32_t> RandomTokens(int64_t count, uint32_t seed,
                                         int32_t vocab = FakeModel::kVocab - 1) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = random() % vocab;
  return tokens;
}

// What a work ended with; wait for it before reading.
struct Outcome {
  absl::Notification done;
  absl::Status status;
  WorkStats stats;
  FinishReason finish = FinishReason::kNone;
  std::vector<float> logprobs;
  std::vector<int32_t> tokens;  // generated or read, in order of report

  const absl::Status& Wait() {
    done.WaitForNotification();
    return status;
  }
};
using OutcomePtr = std::shared_ptr<Outcome>;

inline OutcomePtr StartRead(Engine& engine, ReadWork work) {
  auto outcome = std::make_shared<Outcome>();
  if (!work.on_progress) {
    work.on_progress = [outcome](absl::Span<const int32_t> tokens, int64_t) {
      outcome->tokens.insert(outcome->tokens.end(), tokens.begin(), tokens.end());
    };
  }
  work.on_done = [outcome](absl::Status status, const WorkStats& stats) {
    outcome->status = status;
    outcome->stats = stats;
    outcome->done.Notify();
  };
  const absl::Status submitted = engine.Submit(std::move(work));
  EXPECT_TRUE(submitted.ok()) << submitted;
  return outcome;
}
inline OutcomePtr StartRead(Engine& engine, SequencePtr sequence, std::vector<int32_t> tokens) {
  ReadWork work;
  work.sequence = std::move(sequence);
  work.tokens = std::move(tokens);
  return StartRead(engine, std::move(work));
}

inline OutcomePtr StartGenerate(Engine& engine, GenerateWork work) {
  auto outcome = std::make_shared<Outcome>();
  auto on_token = work.on_token;
  work.on_token = [outcome, on_token](const GeneratedToken& token) {
    outcome->tokens.push_back(token.sampled.token);
    return !on_token || on_token(token);
  };
  work.on_done = [outcome](absl::Status status, const WorkStats& stats, FinishReason finish) {
    outcome->status = status;
    outcome->stats = stats;
    outcome->finish = finish;
    outcome->done.Notify();
  };
  const absl::Status submitted = engine.Submit(std::move(work));
  EXPECT_TRUE(submitted.ok()) << submitted;
  return outcome;
}
inline OutcomePtr StartGenerate(Engine& engine, SequencePtr sequence, int64_t max_tokens,
                                SamplingParams sampling = {}) {
  GenerateWork work;
  work.sequence = std::move(sequence);
  work.max_tokens = max_tokens;
  work.sampling = sampling;
  return StartGenerate(engine, std::move(work));
}

inline OutcomePtr StartScore(Engine& engine, SequencePtr sequence, std::vector<int32_t> tokens) {
  auto outcome = std::make_shared<Outcome>();
  ScoreWork work;
  work.sequence = std::move(sequence);
  work.tokens = std::move(tokens);
  work.on_done = [outcome](absl::Status status, const WorkStats& stats,
                           std::vector<float> logprobs) {
    outcome->status = status;
    outcome->stats = stats;
    outcome->logprobs = std::move(logprobs);
    outcome->done.Notify();
  };
  const absl::Status submitted = engine.Submit(std::move(work));
  EXPECT_TRUE(submitted.ok()) << submitted;
  return outcome;
}

inline absl::Status Read(Engine& engine, SequencePtr sequence, std::vector<int32_t> tokens) {
  return StartRead(engine, std::move(sequence), std::move(tokens))->Wait();
}

inline std::vector<float> Logits(const Engine& engine, const SequencePtr& sequence) {
  const absl::Span<const float> logits = engine.LastLogits(sequence);
  return {logits.begin(), logits.end()};
}

// Holds the engine's thread inside its next step until opened.
class Gate {
 public:
  explicit Gate(FakeModel& model) : model_(model) {
    model.set_hook([this](const std::vector<FakeModel::Part>&) {
      if (!entered_.HasBeenNotified()) entered_.Notify();
      open_.WaitForNotification();
      return absl::OkStatus();
    });
  }
  ~Gate() {
    if (!open_.HasBeenNotified()) Open();
  }
  void WaitUntilEntered() { entered_.WaitForNotification(); }
  void Open() {
    model_.set_hook(nullptr);
    open_.Notify();
  }

 private:
  FakeModel& model_;
  absl::Notification entered_, open_;
};

// An engine on a fake model.
struct Harness {
  explicit Harness(EngineOptions options = {}, StateLayout layout = HybridLayout(),
                   bool draws = false)
      : model(std::make_shared<FakeModel>(std::move(layout))) {
    model->set_draws(draws);
    options.slots.poison_released = true;
    if (options.valid_vocab == 0) options.valid_vocab = FakeModel::kPoison;
    auto made = Engine::Create(model, options);
    EXPECT_TRUE(made.ok()) << made.status();
    engine = *std::move(made);
  }

  SequencePtr NewSequence() {
    auto sequence = engine->NewSequence();
    EXPECT_TRUE(sequence.ok()) << sequence.status();
    return *std::move(sequence);
  }
  // A sequence that has read `tokens`.
  SequencePtr Sequence(std::vector<int32_t> tokens) {
    SequencePtr sequence = NewSequence();
    EXPECT_TRUE(Read(*engine, sequence, std::move(tokens)).ok());
    return sequence;
  }
  // The logits after the tokens, read alone in a fresh engine with one row a step.
  static std::vector<float> Reference(const std::vector<int32_t>& tokens,
                                      StateLayout layout = HybridLayout()) {
    EngineOptions options;
    options.max_prefill_rows = 1;
    Harness alone(options, std::move(layout));
    return Logits(*alone.engine, alone.Sequence(tokens));
  }

  std::shared_ptr<FakeModel> model;
  std::unique_ptr<Engine> engine;
};

}  // namespace anabranch::testing
