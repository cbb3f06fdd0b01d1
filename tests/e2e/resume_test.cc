// After SIGKILL and restart, a session goes on with the bits of the uninterrupted run.
#include <gtest/gtest.h>

#include <random>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

constexpr int kPositions = 20;

// Log-probabilities of a fixed continuation: a function of the logits after every token.
std::vector<float> LogprobsAt(TestClient& client, const std::string& id, int32_t vocab) {
  v1::ScoreResponse response;
  const grpc::Status status = client.Score(id, SomeTokens(6, 77, vocab), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  std::vector<float> logprobs;
  for (const v1::TokenInfo& token : response.tokens()) logprobs.push_back(token.logprob());
  return logprobs;
}

struct Case {
  std::string name, model;
  int32_t vocab;
};

class ResumeTest : public testing::TestWithParam<Case> {
 protected:
  // Twenty positions, each a session of its own, so that one kill tests all of them.
  static std::vector<int> Positions() {
    std::mt19937 random(20);
    std::vector<int> positions;
    for (int i = 0; i < kPositions; ++i) positions.push_back(1 + random() % 400);
    return positions;
  }
  std::vector<int32_t> Tokens(int count) const { return SomeTokens(count, 1, GetParam().vocab); }

  static std::string Id(int i) { return "s" + std::to_string(i); }

  TempDir dir_, other_dir_;
};

TEST_P(ResumeTest, LogitsAreBitEqualAfterKillAndRestart) {
  const std::vector<int> positions = Positions();
  std::vector<std::vector<float>> expected;
  {
    // The uninterrupted run, in a library of its own.
    ServerProcess server(GetParam().model, other_dir_.path());
    ASSERT_FALSE(server.address().empty()) << server.ready_line();
    TestClient client(server.address());
    for (int i = 0; i < kPositions; ++i) {
      client.MustCreate(Id(i));
      ASSERT_TRUE(client.AppendTokens(Id(i), Tokens(positions[i])).has_done);
      expected.push_back(LogprobsAt(client, Id(i), GetParam().vocab));
      ASSERT_EQ(expected.back().size(), 6u);
    }
  }
  {
    ServerProcess server(GetParam().model, dir_.path(), {"--checkpoint-every", "64"});
    ASSERT_FALSE(server.address().empty());
    TestClient client(server.address());
    for (int i = 0; i < kPositions; ++i) {
      client.MustCreate(Id(i));
      // Even ones have a state at their end; odd ones only on the grid, and a log after it.
      ASSERT_TRUE(
          client.AppendTokens(Id(i), Tokens(positions[i]), /*no_checkpoint=*/i % 2).has_done);
    }
    server.Kill();
  }
  ServerProcess server(GetParam().model, dir_.path());
  ASSERT_FALSE(server.address().empty()) << server.ready_line();
  TestClient client(server.address());
  for (int i = 0; i < kPositions; ++i) {
    EXPECT_EQ(LogprobsAt(client, Id(i), GetParam().vocab), expected[i])
        << "position " << positions[i];
  }
}

// Generates `count` tokens; each as its serialised message, which holds the bits of every float.
std::vector<std::string> GenerateBits(TestClient& client, const std::string& id, int count) {
  v1::GenerateRequest request;
  request.set_session_id(id);
  request.set_max_tokens(count);
  request.set_ignore_eos(true);
  request.set_logprobs(true);
  request.set_top_logprobs(20);
  request.set_no_checkpoint(true);
  std::vector<std::string> bits;
  const GenerateResult result = client.Generate(request, [&](const v1::GenerateResponse& response) {
    for (const auto& token : response.delta().tokens()) {
      EXPECT_EQ(token.top_size(), 20);
      bits.push_back(token.SerializeAsString());
    }
    return true;
  });
  EXPECT_TRUE(result.has_done) << result.status.error_message();
  return bits;
}

TEST_P(ResumeTest, AGenerationGoesOnWithTheSameBitsHoweverItsContextWasSplit) {
  const std::vector<int> positions = Positions();
  ServerProcess whole(GetParam().model, other_dir_.path());
  TestClient uninterrupted(whole.address());
  std::mt19937 random(7);
  {
    ServerProcess server(GetParam().model, dir_.path());
    TestClient client(server.address());
    for (int i = 0; i < kPositions; ++i) {
      const std::vector<int32_t> tokens = Tokens(positions[i]);
      uninterrupted.MustCreate(Id(i));
      ASSERT_TRUE(uninterrupted.AppendTokens(Id(i), tokens).has_done);
      client.MustCreate(Id(i));
      for (size_t at = 0; at < tokens.size();) {
        const size_t n = std::min<size_t>(1 + random() % 150, tokens.size() - at);
        const std::vector<int32_t> piece(tokens.begin() + at, tokens.begin() + at + n);
        ASSERT_TRUE(client.AppendTokens(Id(i), piece, /*no_checkpoint=*/random() % 2).has_done);
        at += n;
      }
      // Some of what is replayed was decoded token by token, and is then read in one chunk.
      ASSERT_EQ(GenerateBits(client, Id(i), 1 + i), GenerateBits(uninterrupted, Id(i), 1 + i));
    }
    server.Kill();
  }
  ServerProcess server(GetParam().model, dir_.path());
  TestClient client(server.address());
  for (int i = 0; i < kPositions; ++i) {
    EXPECT_EQ(GenerateBits(client, Id(i), 6), GenerateBits(uninterrupted, Id(i), 6))
        << "position " << positions[i];
  }
}

TEST_P(ResumeTest, ResumingReplaysOnlyTheTokensAfterTheLastState) {
  const auto tokens = Tokens(200);
  {
    ServerProcess server(GetParam().model, dir_.path(), {"--checkpoint-every", "64"});
    TestClient client(server.address());
    client.MustCreate("replayed");
    client.MustCreate("captured");
    ASSERT_TRUE(client.AppendTokens("replayed", tokens, /*no_checkpoint=*/true).has_done);
    ASSERT_TRUE(client.AppendTokens("captured", tokens).has_done);
    server.Kill();
  }
  ServerProcess server(GetParam().model, dir_.path());
  TestClient client(server.address());
  v1::Session session;
  ASSERT_TRUE(client.GetSession("replayed", &session).ok());
  EXPECT_EQ(session.token_count(), 200);
  EXPECT_EQ(session.head_token_count(), 192);
  EXPECT_FALSE(session.loaded());
  const AppendResult replayed = client.AppendTokens("replayed", {5});
  ASSERT_TRUE(replayed.has_done) << replayed.status.error_message();
  EXPECT_EQ(replayed.done.usage().tokens_reused(), 192);
  EXPECT_EQ(replayed.done.usage().tokens_replayed(), 8);
  EXPECT_EQ(replayed.done.usage().tokens_read(), 1);
  EXPECT_GT(replayed.done.usage().state_bytes_loaded(), 0);
  const AppendResult captured = client.AppendTokens("captured", {5});
  ASSERT_TRUE(captured.has_done) << captured.status.error_message();
  EXPECT_EQ(captured.done.usage().tokens_reused(), 200);
  EXPECT_EQ(captured.done.usage().tokens_replayed(), 0);
}

TEST_P(ResumeTest, AGenerationCutByAKillKeepsEveryDurableToken) {
  int64_t durable = 0;
  std::vector<int32_t> seen = Tokens(30);
  {
    ServerProcess server(GetParam().model, dir_.path());
    TestClient client(server.address());
    client.MustCreate("a");
    ASSERT_TRUE(client.AppendTokens("a", seen).has_done);
    v1::GenerateRequest request;
    request.set_session_id("a");
    request.set_max_tokens(16000);
    request.set_ignore_eos(true);
    // On a disk that stalls, a call may end before anything of it is durable: then the next is cut.
    grpc::Status cut;
    for (int call = 0; call < 5 && cut.ok(); ++call) {
      const GenerateResult result =
          client.Generate(request, [&](const v1::GenerateResponse& event) {
            for (const auto& token : event.delta().tokens()) seen.push_back(token.id());
            durable = std::max(durable, event.delta().durable_token_count());
            if (durable > 130) server.Kill();
            return true;
          });
      cut = result.status;
    }
    EXPECT_EQ(cut.error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  ASSERT_GT(durable, 130);
  ServerProcess server(GetParam().model, dir_.path());
  TestClient client(server.address());
  const std::vector<int32_t> kept = client.SessionTokens("a");
  ASSERT_GE(static_cast<int64_t>(kept.size()), durable);
  const size_t common = std::min(kept.size(), seen.size());
  EXPECT_TRUE(std::equal(kept.begin(), kept.begin() + common, seen.begin()));
  EXPECT_TRUE(client.AppendTokens("a", {1}).has_done);
}

INSTANTIATE_TEST_SUITE_P(Models, ResumeTest,
                         testing::Values(Case{"mamba", GoldenModel("mamba"), 257},
                                         Case{"mamba2", GoldenModel("mamba2"), 257},
                                         Case{"falcon_mamba", GoldenModel("falcon_mamba"), 257},
                                         Case{"granitemoehybrid_dense",
                                              GoldenModel("granitemoehybrid_dense"), 257}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace anabranch
