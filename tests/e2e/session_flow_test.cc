// The main job over a real socket, with a tiny model: create, append, generate, commit, resume.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

class SessionFlowTest : public testing::Test {
 protected:
  void SetUp() override { Start(TestConfig(GoldenModel("mamba2"), dir_.path())); }

  void Start(const ServerConfig& config) {
    client_.reset();
    server_.reset();
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }

  GenerateResult Generate(const std::string& id, int max_tokens,
                          const std::string& request_id = "") {
    v1::GenerateRequest request;
    request.set_session_id(id);
    request.set_max_tokens(max_tokens);
    request.set_logprobs(true);
    request.set_ignore_eos(true);
    request.set_request_id(request_id);
    return client_->Generate(request);
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

TEST_F(SessionFlowTest, AppendReportsWhatWasReadAndEndsDurable) {
  client_->MustCreate("a");
  const AppendResult result = client_->AppendTokens("a", SomeTokens(100, 1));
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_TRUE(result.has_done);
  EXPECT_EQ(result.done.usage().tokens_read(), 100);
  EXPECT_EQ(result.done.usage().tokens_reused(), 0);
  EXPECT_GT(result.done.usage().state_bytes_stored(), 0);
  EXPECT_EQ(result.done.session().token_count(), 100);
  EXPECT_EQ(result.done.session().head_token_count(), 100);
  EXPECT_EQ(client_->SessionTokens("a"), SomeTokens(100, 1));
}

TEST_F(SessionFlowTest, ProgressCarriesTheDurablePosition) {
  client_->MustCreate("a");
  const AppendResult result = client_->AppendTokens("a", SomeTokens(4000, 1));
  ASSERT_TRUE(result.has_done);
  int64_t last = 0;
  int progress_count = 0;
  for (const v1::AppendResponse& event : result.events) {
    if (!event.has_progress()) continue;
    ++progress_count;
    EXPECT_GE(event.progress().durable_token_count(), last);
    EXPECT_LE(event.progress().durable_token_count(), event.progress().tokens_read());
    EXPECT_EQ(event.progress().tokens_total(), 4000);
    last = event.progress().durable_token_count();
  }
  EXPECT_GT(progress_count, 0);
}

TEST_F(SessionFlowTest, ManyMessagesOfOneAppendEqualOneMessage) {
  client_->MustCreate("one");
  client_->MustCreate("many");
  const auto tokens = SomeTokens(300, 2);
  ASSERT_TRUE(client_->AppendTokens("one", tokens).has_done);
  std::vector<v1::AppendRequest> requests;
  for (int i = 0; i < 300; i += 30) {
    v1::AppendRequest request;
    if (i == 0) request.set_session_id("many");
    *request.mutable_content() = TokenContent({tokens.begin() + i, tokens.begin() + i + 30});
    requests.push_back(request);
  }
  const AppendResult many = client_->Append(requests);
  ASSERT_TRUE(many.has_done) << many.status.error_message();
  v1::Session one;
  ASSERT_TRUE(client_->GetSession("one", &one).ok());
  // Content-derived ids: the same history has the same state.
  EXPECT_EQ(many.done.session().head_state_id(), one.head_state_id());
}

TEST_F(SessionFlowTest, GenerateStreamsTokensAndEndsDurable) {
  client_->MustCreate("a");
  ASSERT_TRUE(client_->AppendTokens("a", SomeTokens(20, 1)).has_done);
  const GenerateResult result = Generate("a", 30);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  ASSERT_TRUE(result.has_done);
  EXPECT_EQ(result.done.finish_reason(), v1::FINISH_REASON_MAX_TOKENS);
  EXPECT_EQ(result.done.usage().tokens_reused(), 20);
  EXPECT_EQ(result.done.usage().tokens_generated(), 30);
  EXPECT_EQ(result.done.usage().tokens_read(), 0);
  EXPECT_EQ(result.done.session().token_count(), 50);
  EXPECT_EQ(result.done.session().head_token_count(), 50);
  std::vector<int32_t> expected = SomeTokens(20, 1);
  for (const v1::GenerateResponse& event : result.events) {
    for (const v1::TokenInfo& token : event.delta().tokens()) {
      expected.push_back(token.id());
      EXPECT_LT(token.logprob(), 0);
    }
    if (event.has_delta()) {
      EXPECT_EQ(event.delta().token_count(), static_cast<int64_t>(expected.size()));
      EXPECT_LE(event.delta().durable_token_count(), event.delta().token_count());
    }
  }
  EXPECT_EQ(client_->SessionTokens("a"), expected);
}

TEST_F(SessionFlowTest, TheSameSeedGivesTheSameTokensInAnotherSession) {
  std::vector<int32_t> generated[2];
  for (int i = 0; i < 2; ++i) {
    const std::string id = i == 0 ? "first" : "second";
    client_->MustCreate(id);
    ASSERT_TRUE(client_->AppendTokens(id, SomeTokens(20, 1)).has_done);
    v1::GenerateRequest request;
    request.set_session_id(id);
    request.set_max_tokens(40);
    request.set_ignore_eos(true);
    request.mutable_sampling()->set_temperature(1);
    request.mutable_sampling()->set_seed(7);
    ASSERT_TRUE(client_->Generate(request).has_done);
    generated[i] = client_->SessionTokens(id);
  }
  EXPECT_EQ(generated[0], generated[1]);
  EXPECT_EQ(generated[0].size(), 60u);
}

TEST_F(SessionFlowTest, CommitMovesTheRefAndASessionStartsFromIt) {
  client_->MustCreate("ada/main");
  ASSERT_TRUE(
      client_->AppendTokens("ada/main", SomeTokens(50, 3), /*no_checkpoint=*/true).has_done);
  v1::CommitRequest commit;
  commit.set_session_id("ada/main");
  (*commit.mutable_labels())["kind"] = "test";
  commit.set_expected_ref_state_id("-");
  v1::CommitResponse committed;
  grpc::Status status = client_->Commit(commit, &committed);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(committed.ref().name(), "ada/main");
  EXPECT_EQ(committed.ref().state_id(), committed.state().id());
  EXPECT_EQ(committed.state().token_count(), 50);
  EXPECT_EQ(committed.state().labels().at("kind"), "test");

  v1::CreateSessionRequest create;
  create.set_session_id("copy");
  create.set_ref_name("ada/main");
  v1::CreateSessionResponse created;
  status = client_->Create(create, &created);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(created.usage().tokens_reused(), 50);
  EXPECT_EQ(created.usage().tokens_read(), 0);
  v1::ScoreResponse original, copy;
  ASSERT_TRUE(client_->Score("ada/main", SomeTokens(5, 4), &original).ok());
  ASSERT_TRUE(client_->Score("copy", SomeTokens(5, 4), &copy).ok());
  ASSERT_EQ(copy.tokens_size(), 5);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(original.tokens(i).logprob(), copy.tokens(i).logprob());
  }
}

TEST_F(SessionFlowTest, CommitWithAnotherExpectationIsAbortedAndCapturesNothing) {
  client_->MustCreate("a");
  ASSERT_TRUE(client_->AppendTokens("a", SomeTokens(10, 1), /*no_checkpoint=*/true).has_done);
  v1::CommitRequest commit;
  commit.set_session_id("a");
  commit.set_expected_ref_state_id("st-0123456789012345678901234567890123456789");
  v1::CommitResponse response;
  const grpc::Status status = client_->Commit(commit, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(ReasonOf(status), "REF_MISMATCH");
  v1::Session session;
  ASSERT_TRUE(client_->GetSession("a", &session).ok());
  EXPECT_EQ(session.head_state_id(), "");
  EXPECT_TRUE(session.loaded());
}

TEST_F(SessionFlowTest, FullHistoryReusesTheDeepestStoredPrefix) {
  client_->MustCreate("a");
  const auto history = SomeTokens(200, 5);
  ASSERT_TRUE(client_->AppendTokens("a", {history.begin(), history.begin() + 80}).has_done);
  ASSERT_TRUE(client_->AppendTokens("a", {history.begin() + 80, history.begin() + 150}).has_done);
  v1::CreateSessionRequest create;
  create.set_session_id("b");
  *create.mutable_history() = TokenContent(history);
  v1::CreateSessionResponse created;
  grpc::Status status = client_->Create(create, &created);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(created.usage().tokens_reused(), 150);
  EXPECT_EQ(created.usage().tokens_read(), 50);
  EXPECT_EQ(created.usage().miss_reason(), "");
  EXPECT_EQ(created.session().token_count(), 200);
  EXPECT_EQ(client_->SessionTokens("b"), history);

  create.set_session_id("c");
  *create.mutable_history() = TokenContent(SomeTokens(30, 99));
  status = client_->Create(create, &created);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(created.usage().tokens_reused(), 0);
  EXPECT_EQ(created.usage().tokens_read(), 30);
  EXPECT_NE(created.usage().miss_reason(), "");
}

TEST_F(SessionFlowTest, ScoreDoesNotMoveTheSession) {
  client_->MustCreate("a");
  ASSERT_TRUE(client_->AppendTokens("a", SomeTokens(20, 1)).has_done);
  v1::ScoreResponse first, second;
  ASSERT_TRUE(client_->Score("a", SomeTokens(9, 2), &first).ok());
  ASSERT_TRUE(client_->Score("a", SomeTokens(9, 2), &second).ok());
  EXPECT_EQ(first.token_count(), 9);
  EXPECT_LT(first.logprob(), 0);
  EXPECT_EQ(first.logprob(), second.logprob());
  EXPECT_EQ(client_->SessionTokens("a").size(), 20u);
  // Score and greedy generation agree about the best token's probability.
  const GenerateResult generated = Generate("a", 1);
  ASSERT_TRUE(generated.has_done);
  const v1::TokenInfo& best = generated.events[0].delta().tokens(0);
  client_->MustCreate("b");
  ASSERT_TRUE(client_->AppendTokens("b", SomeTokens(20, 1)).has_done);
  v1::ScoreResponse scored;
  ASSERT_TRUE(client_->Score("b", {best.id()}, &scored).ok());
  EXPECT_EQ(scored.tokens(0).logprob(), best.logprob());
}

TEST_F(SessionFlowTest, ARepeatedRequestIdGivesTheFirstAnswer) {
  v1::CreateSessionRequest create;
  create.set_session_id("a");
  create.set_request_id("create-1");
  v1::CreateSessionResponse first, second;
  ASSERT_TRUE(client_->Create(create, &first).ok());
  const grpc::Status repeated = client_->Create(create, &second);
  ASSERT_TRUE(repeated.ok()) << repeated.error_message();
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());

  const AppendResult once = client_->AppendTokens("a", SomeTokens(12, 1), false, "append-1");
  const AppendResult twice = client_->AppendTokens("a", SomeTokens(12, 1), false, "append-1");
  ASSERT_TRUE(once.has_done && twice.has_done) << twice.status.error_message();
  EXPECT_EQ(once.done.session().token_count(), 12);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(once.done, twice.done));
  EXPECT_EQ(client_->SessionTokens("a").size(), 12u);

  const GenerateResult spoken = Generate("a", 8, "generate-1");
  ASSERT_TRUE(spoken.has_done);
  Start(TestConfig(GoldenModel("mamba2"), dir_.path()));  // the answer outlives the server
  const GenerateResult again = Generate("a", 8, "generate-1");
  ASSERT_TRUE(again.has_done) << again.status.error_message();
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spoken.done, again.done));
  EXPECT_EQ(client_->SessionTokens("a").size(), 20u);

  const AppendResult other = client_->AppendTokens("a", SomeTokens(3, 1), false, "generate-1");
  EXPECT_EQ(other.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonOf(other.status), "REQUEST_ID_REUSED");
}

TEST_F(SessionFlowTest, ASecondWriterIsAbortedAndTheFirstGoesOn) {
  client_->MustCreate("a");
  ASSERT_TRUE(client_->AppendTokens("a", SomeTokens(10, 1)).has_done);
  auto context = TestClient::Context();
  auto held = client_->sessions().Append(context.get());
  v1::AppendRequest request;
  request.set_session_id("a");
  *request.mutable_content() = TokenContent(SomeTokens(5, 2));
  ASSERT_TRUE(held->Write(request));
  v1::AppendResponse event;
  ASSERT_TRUE(held->Read(&event));  // progress: the call holds the session
  v1::Session session;
  ASSERT_TRUE(client_->GetSession("a", &session).ok());
  EXPECT_TRUE(session.busy());
  const AppendResult second = client_->AppendTokens("a", SomeTokens(5, 3));
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_EQ(ReasonOf(second.status), "SESSION_BUSY");
  held->WritesDone();
  while (held->Read(&event)) {
  }
  EXPECT_TRUE(held->Finish().ok());
  EXPECT_TRUE(event.has_done());
  EXPECT_EQ(client_->SessionTokens("a").size(), 15u);
}

TEST_F(SessionFlowTest, CancellingKeepsWhatWasGenerated) {
  client_->MustCreate("a");
  ASSERT_TRUE(client_->AppendTokens("a", SomeTokens(10, 1)).has_done);
  v1::GenerateRequest request;
  request.set_session_id("a");
  request.set_max_tokens(16000);
  request.set_ignore_eos(true);
  int64_t durable = 0;
  std::vector<int32_t> seen = SomeTokens(10, 1);
  const GenerateResult result = client_->Generate(request, [&](const v1::GenerateResponse& event) {
    for (const auto& token : event.delta().tokens()) seen.push_back(token.id());
    durable = std::max(durable, event.delta().durable_token_count());
    return seen.size() < 100;
  });
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_FALSE(result.has_done);
  // The engine stops within a step; then the session takes the next call.
  AppendResult next;
  for (int i = 0; i < 200; ++i) {
    next = client_->AppendTokens("a", {1, 2, 3});
    if (ReasonOf(next.status) != "SESSION_BUSY") break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_TRUE(next.has_done) << next.status.error_message();
  const std::vector<int32_t> tokens = client_->SessionTokens("a");
  ASSERT_GE(tokens.size(), seen.size() + 3);
  EXPECT_LT(tokens.size(), 8000u);  // it really stopped
  EXPECT_GE(static_cast<int64_t>(tokens.size()), durable);
  EXPECT_TRUE(std::equal(seen.begin(), seen.end(), tokens.begin()));
}

TEST_F(SessionFlowTest, ADeadlineEndsAGenerationWithinAStep) {
  client_->MustCreate("a");
  ASSERT_TRUE(client_->AppendTokens("a", SomeTokens(10, 1)).has_done);
  v1::GenerateRequest request;
  request.set_session_id("a");
  request.set_max_tokens(16000);
  request.set_ignore_eos(true);
  const GenerateResult result = client_->Generate(request, nullptr, /*deadline_ms=*/150);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  v1::Session session;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(client_->GetSession("a", &session).ok());
    if (!session.busy()) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_FALSE(session.busy());
  EXPECT_LT(session.token_count(), 16000);
}

TEST_F(SessionFlowTest, MoreSessionsThanSlotsTakeTurns) {
  ServerConfig config = TestConfig(GoldenModel("mamba2"), dir_.path());
  config.slots = 2;
  Start(config);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 6; ++i) {
      const std::string id = "s" + std::to_string(i);
      if (round == 0) client_->MustCreate(id);
      const AppendResult result =
          client_->AppendTokens(id, SomeTokens(10, 10 * round + i), /*no_checkpoint=*/round == 0);
      ASSERT_TRUE(result.has_done) << result.status.error_message();
      EXPECT_EQ(result.done.session().token_count(), 10 * (round + 1));
      // Unloading captured the tokens that had no state yet, so nothing is replayed.
      EXPECT_EQ(result.done.usage().tokens_reused(), 10 * round);
      EXPECT_EQ(result.done.usage().tokens_replayed(), 0);
    }
  }
  v1::ScoreResponse score;
  EXPECT_TRUE(client_->Score("s5", {1, 2}, &score).ok());  // needs room for a fork
}

// Each client has a session of its own, and the server one slot less: whoever comes back often
// finds its session leaving the slot. That is the server's business, not a refusal.
TEST_F(SessionFlowTest, ASessionThatIsBeingUnloadedIsNotRefused) {
  constexpr int kClients = 4, kCalls = 60;
  ServerConfig config = TestConfig(GoldenModel("mamba2"), dir_.path());
  config.slots = kClients - 1;
  Start(config);
  std::atomic<int> answered{0}, without_slot{0};
  std::vector<std::string> refusals(kClients);
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) {
    client_->MustCreate("s" + std::to_string(i));
    clients.emplace_back([&, i] {
      TestClient client(server_->address());
      const std::string id = "s" + std::to_string(i);
      for (int call = 0; call < kCalls;) {
        const AppendResult result =
            client.AppendTokens(id, SomeTokens(3, call), /*no_checkpoint=*/true);
        answered += result.has_done;
        call += result.has_done;
        if (result.has_done) continue;
        ++without_slot;
        if (ReasonOf(result.status) == "SLOTS_EXHAUSTED") continue;
        refusals[i] = result.status.error_message();
        return;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (const std::string& refusal : refusals) EXPECT_EQ(refusal, "");
  EXPECT_EQ(answered, kClients * kCalls) << without_slot << " calls found no slot";
  for (int i = 0; i < kClients; ++i) {
    EXPECT_EQ(client_->SessionTokens("s" + std::to_string(i)).size(), 3u * kCalls);
  }
}

TEST_F(SessionFlowTest, IdleSessionsGiveUpTheirAttentionPages) {
  TempDir dir;
  ServerConfig config = TestConfig(GoldenModel("granitemoehybrid_dense"), dir.path());
  config.kv_pages = 8;
  Start(config);
  // Three pages each, and room for two sessions beside what a read may copy.
  for (int i = 0; i < 5; ++i) {
    const std::string id = "s" + std::to_string(i);
    client_->MustCreate(id);
    const AppendResult result = client_->AppendTokens(id, SomeTokens(600, i));
    ASSERT_TRUE(result.has_done) << result.status.error_message();
  }
  const AppendResult back = client_->AppendTokens("s0", {1});
  ASSERT_TRUE(back.has_done) << back.status.error_message();
  EXPECT_EQ(back.done.usage().tokens_reused(), 600);
  // More than all pages hold is refused, and what was read stays.
  const AppendResult too_much = client_->AppendTokens("s1", SomeTokens(3000, 9));
  EXPECT_EQ(too_much.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ReasonOf(too_much.status), "ENGINE_FULL");
  EXPECT_GE(client_->SessionTokens("s1").size(), 600u);
  EXPECT_TRUE(client_->AppendTokens("s2", {1}).has_done);
  Start(TestConfig(GoldenModel("mamba2"), dir_.path()));
}

TEST_F(SessionFlowTest, LongReadsLeaveStatesOnTheGrid) {
  ServerConfig config = TestConfig(GoldenModel("mamba2"), dir_.path());
  config.checkpoint_every = 256;
  Start(config);
  client_->MustCreate("a");
  const AppendResult result = client_->AppendTokens("a", SomeTokens(1000, 1));
  ASSERT_TRUE(result.has_done) << result.status.error_message();
  v1::GetLineageRequest request;
  request.set_id(result.done.session().head_state_id());
  v1::GetLineageResponse response;
  ASSERT_TRUE(client_->states().GetLineage(TestClient::Context().get(), request, &response).ok());
  std::vector<int64_t> counts;
  for (const v1::State& state : response.states()) counts.push_back(state.token_count());
  EXPECT_EQ(counts, (std::vector<int64_t>{1000, 768, 512, 256}));
}

TEST_F(SessionFlowTest, ClosedSessionsAreGoneAndTheirStatesStay) {
  client_->MustCreate("a");
  const AppendResult appended = client_->AppendTokens("a", SomeTokens(10, 1));
  ASSERT_TRUE(appended.has_done);
  v1::CloseSessionRequest request;
  request.set_session_id("a");
  request.set_request_id("close-1");
  v1::CloseSessionResponse response;
  ASSERT_TRUE(
      client_->sessions().CloseSession(TestClient::Context().get(), request, &response).ok());
  EXPECT_TRUE(
      client_->sessions().CloseSession(TestClient::Context().get(), request, &response).ok());
  v1::Session session;
  EXPECT_EQ(client_->GetSession("a", &session).error_code(), grpc::StatusCode::NOT_FOUND);
  v1::GetStateRequest get;
  get.set_id(appended.done.session().head_state_id());
  v1::State state;
  EXPECT_TRUE(client_->states().GetState(TestClient::Context().get(), get, &state).ok());
  EXPECT_EQ(client_->Status().engine().slots_used(), 0);
}

}  // namespace
}  // namespace anabranch
