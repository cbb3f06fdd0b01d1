// Clients that send their whole history again: what they share is read at most twice.
#include <gtest/gtest.h>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using Tokens = std::vector<int32_t>;

Tokens Joined(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class PrefixReuse : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { Start(); }

  void Start() {
    client_.reset();
    server_.reset();
    auto server = Server::Start(TestConfig(GoldenModel(GetParam()), dir_.path()));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }

  v1::CreateSessionResponse Resend(const std::string& id, const Tokens& history) {
    v1::CreateSessionRequest request;
    request.set_session_id(id);
    *request.mutable_history() = TokenContent(history);
    v1::CreateSessionResponse response;
    const grpc::Status status = client_->Create(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(client_->SessionTokens(id), history);
    return response;
  }

  // What the session says next: equal bits mean equal states.
  std::string Says(const std::string& id) {
    v1::GenerateRequest request;
    request.set_session_id(id);
    request.set_max_tokens(8);
    request.set_logprobs(true);
    request.set_ignore_eos(true);
    std::string said;
    for (const v1::GenerateResponse& event : client_->Generate(request).events) {
      for (const v1::TokenInfo& token : event.delta().tokens()) said += token.SerializeAsString();
    }
    EXPECT_NE(said, "");
    return said;
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

TEST_P(PrefixReuse, TheThirdHistoryPaysNothingForWhatTwoShared) {
  const Tokens shared = SomeTokens(333, 1);
  const auto first = Resend("first", Joined(shared, SomeTokens(100, 2)));
  EXPECT_EQ(first.usage().tokens_read(), 433);
  EXPECT_EQ(first.usage().branch_token_count(), 0);
  const auto second = Resend("second", Joined(shared, SomeTokens(50, 3)));
  EXPECT_EQ(second.usage().tokens_reused(), 0);
  EXPECT_EQ(second.usage().tokens_read(), 383);
  EXPECT_EQ(second.usage().branch_token_count(), 333) << "exactly where they part";
  const auto third = Resend("third", Joined(shared, SomeTokens(40, 4)));
  EXPECT_EQ(third.usage().tokens_reused(), 333);
  EXPECT_EQ(third.usage().tokens_read(), 40);
  EXPECT_EQ(third.usage().branch_token_count(), 0);
}

TEST_P(PrefixReuse, ReusedHistoriesContinueWithTheBitsOfOnesThatWereRead) {
  const Tokens shared = SomeTokens(300, 1), ending = SomeTokens(30, 9);
  Resend("first", Joined(shared, SomeTokens(100, 2)));
  Resend("second", Joined(shared, SomeTokens(100, 3)));
  EXPECT_EQ(Resend("reused", Joined(shared, ending)).usage().tokens_reused(), 300);
  client_->MustCreate("read");
  ASSERT_TRUE(client_->AppendTokens("read", Joined(shared, ending)).has_done);
  EXPECT_EQ(Says("reused"), Says("read"));
}

TEST_P(PrefixReuse, BranchPointsAreFoundAfterARestart) {
  const Tokens shared = SomeTokens(200, 1);
  client_->MustCreate("told");
  ASSERT_TRUE(client_->AppendTokens("told", Joined(shared, SomeTokens(200, 2))).has_done);
  Start();
  EXPECT_EQ(Resend("second", Joined(shared, SomeTokens(9, 3))).usage().branch_token_count(), 200);
  Start();
  EXPECT_EQ(Resend("third", Joined(shared, SomeTokens(9, 4))).usage().tokens_reused(), 200);
}

// A conversation that grows and is sent again whole at every turn, then answered in another way.
TEST_P(PrefixReuse, AGrowingHistoryReadsOnlyItsLastTurn) {
  Tokens history = SomeTokens(150, 1);
  Resend("turn0", history);
  for (int turn = 1; turn < 5; ++turn) {
    const int64_t before = static_cast<int64_t>(history.size());
    history = Joined(history, SomeTokens(70 + turn, turn + 1));
    const v1::Usage usage = Resend("turn" + std::to_string(turn), history).usage();
    EXPECT_EQ(usage.tokens_reused(), before);
    EXPECT_EQ(usage.tokens_read(), 70 + turn);
    EXPECT_EQ(usage.branch_token_count(), 0);
  }
}

TEST_P(PrefixReuse, AShortOverlapIsNotWorthAState) {
  const Tokens shared = SomeTokens(20, 1);
  Resend("first", Joined(shared, SomeTokens(100, 2)));
  const v1::Usage usage = Resend("second", Joined(shared, SomeTokens(100, 3))).usage();
  EXPECT_EQ(usage.branch_token_count(), 0);
  EXPECT_EQ(usage.tokens_read(), 120);
}

INSTANTIATE_TEST_SUITE_P(Models, PrefixReuse, testing::Values("mamba2", "zamba2"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace anabranch
