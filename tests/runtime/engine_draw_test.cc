// A model that draws tokens where its logits are: the engine gives what it gives when it draws them
// itself, and leaves the logits alone until somebody wants them.
#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/engine_harness.h"

namespace anabranch {
namespace {

using testing::FakeModel;
using testing::HybridLayout;
using testing::Logits;
using testing::OutcomePtr;
using testing::RandomTokens;
using testing::StartGenerate;
using testing::StartRead;
using testing::StartScore;
using Harness = testing::Harness;

std::vector<SamplingParams> ManyRules() {
  std::vector<SamplingParams> rules(6);
  rules[1].temperature = 0.9f, rules[1].seed = 5;
  rules[2].temperature = 1.3f, rules[2].top_p = 0.8f, rules[2].min_p = 0.02f, rules[2].seed = 6;
  rules[3].temperature = 0.7f, rules[3].repetition_penalty = 1.2f;  // by the host
  rules[4].top_logprobs = 3;                                        // by the host
  rules[5].temperature = 1, rules[5].top_k = FakeModel::kLeftToHost, rules[5].seed = 7;
  return rules;
}

// Everything that can be seen of a busy engine.
struct Seen {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> logprobs, last_logits;
  std::map<std::pair<size_t, int64_t>, std::vector<uint8_t>> checkpoints;
  std::vector<float> scores;
};

Seen RunAll(bool draws) {
  EngineOptions options;
  options.max_prefill_rows = 16;
  options.max_prefill_rows_decoding = 5;
  options.max_decode_rows = 4;  // fewer than there are: they take turns
  options.max_score_rows = 3;
  Harness h(options, HybridLayout(), draws);
  const std::vector<SamplingParams> rules = ManyRules();
  Seen seen;
  seen.logprobs.resize(rules.size());
  std::vector<SequencePtr> sequences;
  std::vector<OutcomePtr> reads, replies;
  for (size_t i = 0; i < rules.size(); ++i) {
    sequences.push_back(h.NewSequence());
    reads.push_back(StartRead(*h.engine, sequences[i], RandomTokens(5 + 19 * i, i)));
  }
  for (const OutcomePtr& read : reads) EXPECT_TRUE(read->Wait().ok()) << read->status;
  for (size_t i = 0; i < rules.size(); ++i) {
    GenerateWork work;
    work.sequence = sequences[i];
    work.max_tokens = 40;
    work.sampling = rules[i];
    work.checkpoint_every = 16;
    work.on_checkpoint = [&, i](int64_t position, absl::StatusOr<StateImage> image) {
      ASSERT_TRUE(image.ok()) << image.status();
      const absl::string_view bytes = image->payload;
      seen.checkpoints[{i, position}].assign(bytes.begin(), bytes.end());
    };
    work.on_token = [&, i](const GeneratedToken& token) {
      seen.logprobs[i].push_back(token.sampled.logprob);
      return i != 1 || seen.logprobs[i].size() < 20;  // one is stopped by its caller
    };
    replies.push_back(StartGenerate(*h.engine, std::move(work)));
  }
  const SequencePtr scored = h.Sequence(RandomTokens(30, 90));
  const OutcomePtr score = StartScore(*h.engine, scored, RandomTokens(17, 91));
  EXPECT_TRUE(score->Wait().ok()) << score->status;
  seen.scores = score->logprobs;
  for (size_t i = 0; i < rules.size(); ++i) {
    EXPECT_TRUE(replies[i]->Wait().ok()) << replies[i]->status;
    seen.tokens.push_back(replies[i]->tokens);
    seen.last_logits.push_back(Logits(*h.engine, sequences[i]));
  }
  return seen;
}

TEST(EngineDrawTest, GivesWhatTheHostWouldDraw) {
  const Seen host = RunAll(false), device = RunAll(true);
  EXPECT_EQ(device.tokens, host.tokens);
  EXPECT_EQ(device.logprobs, host.logprobs);
  EXPECT_EQ(device.last_logits, host.last_logits);
  EXPECT_EQ(device.scores, host.scores);
  EXPECT_EQ(device.checkpoints, host.checkpoints);
  EXPECT_GT(host.checkpoints.size(), 10u);
}

TEST(EngineDrawTest, LogitsStayOnTheDeviceUntilTheyAreWanted) {
  Harness h({}, HybridLayout(), true);
  const SequencePtr sequence = h.Sequence(RandomTokens(900, 1));  // two steps
  EXPECT_EQ(h.model->rows_read(), 1);
  ASSERT_TRUE(StartGenerate(*h.engine, sequence, 50)->Wait().ok());
  EXPECT_EQ(h.model->rows_read(), 2);
  EXPECT_EQ(Logits(*h.engine, sequence), Harness::Reference(h.engine->Tokens(sequence)));
}

TEST(EngineDrawTest, ACancelledGenerationKeepsItsLogits) {
  Harness h({}, HybridLayout(), true);
  const SequencePtr sequence = h.Sequence(RandomTokens(10, 1));
  GenerateWork work;
  work.sequence = sequence;
  work.options.cancel = std::make_shared<CancelToken>();
  work.on_token = [cancel = work.options.cancel](const GeneratedToken& token) {
    if (token.position == 20) cancel->Cancel();
    return true;
  };
  const OutcomePtr reply = StartGenerate(*h.engine, std::move(work));
  EXPECT_EQ(reply->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Logits(*h.engine, sequence), Harness::Reference(h.engine->Tokens(sequence)));
  EXPECT_TRUE(StartGenerate(*h.engine, sequence, 3)->Wait().ok());
}

TEST(EngineDrawTest, LogitsThatAreNotFiniteBreakTheSequence) {
  Harness h({}, HybridLayout(), true);
  const SequencePtr sequence = h.Sequence(RandomTokens(10, 1));
  const absl::Status read = StartRead(*h.engine, sequence, {FakeModel::kPoison})->Wait();
  EXPECT_EQ(read.code(), absl::StatusCode::kInternal) << read;
  EXPECT_FALSE(h.engine->Capture(sequence).ok());
}

}  // namespace
}  // namespace anabranch
