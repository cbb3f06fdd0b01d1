// Forks and rewinds over a real socket: what goes on from one point equals what was read straight,
// bit for bit, and nothing is stored twice.
#include <gtest/gtest.h>

#include <random>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using grpc::StatusCode;

// With a state of constant size, and with keys and values of attention beside it.
class BranchingTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { Start(); }

  void Start(int32_t slots = 8) {
    client_.reset();
    server_.reset();
    ServerConfig config = TestConfig(GoldenModel(GetParam()), dir_.path());
    config.slots = slots;
    config.checkpoint_every = 256;
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }

  grpc::Status Fork(const v1::ForkRequest& request, v1::ForkResponse* response) {
    return client_->sessions().Fork(TestClient::Context().get(), request, response);
  }
  grpc::Status ForkSession(const std::string& id, int count, v1::ForkResponse* response) {
    v1::ForkRequest request;
    request.set_session_id(id);
    request.set_count(count);
    return Fork(request, response);
  }
  grpc::Status Rewind(const std::string& id, int64_t token_count, bool dry_run,
                      v1::RewindResponse* response) {
    return client_->Rewind(id, token_count, dry_run, response);
  }
  std::vector<float> Fingerprint(const std::string& id, v1::Usage* usage = nullptr) {
    return client_->Fingerprint(id, usage);
  }
  // What a session of its own that reads the tokens straight gives.
  std::vector<float> Straight(const std::vector<int32_t>& tokens) {
    const std::string id = "straight/" + std::to_string(++straight_);
    client_->MustCreate(id);
    EXPECT_TRUE(client_->AppendTokens(id, tokens).has_done);
    return Fingerprint(id);
  }
  int64_t CountStates() {
    v1::ListStatesRequest request;
    request.set_page_size(1000);
    v1::ListStatesResponse response;
    EXPECT_TRUE(client_->states().ListStates(TestClient::Context().get(), request, &response).ok());
    return response.states_size();
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
  int straight_ = 0;
};

std::vector<int32_t> Joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_P(BranchingTest, ForksGoOnAsTheSourceWouldAndLeaveItAlone) {
  const std::vector<int32_t> prefix = SomeTokens(300, 1);
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", prefix).has_done);
  const std::vector<float> before = Fingerprint("main");
  v1::ForkResponse forked;
  ASSERT_TRUE(ForkSession("main", 3, &forked).ok());
  ASSERT_EQ(forked.sessions_size(), 3);
  EXPECT_EQ(forked.usage().tokens_reused(), 300);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(forked.sessions(i).id(), "main/" + std::to_string(i + 1));
    EXPECT_EQ(forked.sessions(i).token_count(), 300);
    EXPECT_TRUE(forked.sessions(i).loaded());
    const std::vector<int32_t> own = SomeTokens(40 + i, 10 + i);
    ASSERT_TRUE(client_->AppendTokens(forked.sessions(i).id(), own).has_done);
    EXPECT_EQ(Fingerprint(forked.sessions(i).id()), Straight(Joined(prefix, own)));
  }
  EXPECT_EQ(Fingerprint("main"), before);
  EXPECT_EQ(client_->SessionTokens("main"), prefix);
}

TEST_P(BranchingTest, ForksTakeNoStateOfTheirOwnUntilTheyDiffer) {
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(300, 1)).has_done);
  const int64_t states = CountStates();
  const int64_t slots = client_->Status().engine().slots_used();
  v1::ForkResponse forked;
  ASSERT_TRUE(ForkSession("main", 1000, &forked).ok());
  EXPECT_EQ(forked.sessions_size(), 1000);
  EXPECT_EQ(CountStates(), states);
  EXPECT_EQ(client_->Status().engine().slots_used(), slots);
  EXPECT_EQ(forked.usage().state_bytes_stored(), 0);
  ASSERT_TRUE(client_->AppendTokens("main/7", {1}).has_done);
  EXPECT_EQ(CountStates(), states + 1);
  EXPECT_EQ(client_->Status().engine().slots_used(), slots + 1);
}

TEST_P(BranchingTest, AnEndWithoutAStateIsCapturedOnce) {
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(90, 1), /*no_checkpoint=*/true).has_done);
  EXPECT_EQ(CountStates(), 0);
  v1::ForkResponse forked;
  ASSERT_TRUE(ForkSession("main", 4, &forked).ok());
  EXPECT_EQ(CountStates(), 1);
  EXPECT_GT(forked.usage().state_bytes_stored(), 0);
  v1::Session main;
  ASSERT_TRUE(client_->GetSession("main", &main).ok());
  EXPECT_EQ(main.head_token_count(), 90);
  EXPECT_EQ(forked.sessions(3).head_state_id(), main.head_state_id());
}

TEST_P(BranchingTest, StatesAndRefsForkAndForksSurviveARestart) {
  const std::vector<int32_t> prefix = SomeTokens(120, 1);
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", prefix).has_done);
  v1::CommitRequest commit;
  commit.set_session_id("main");
  v1::CommitResponse committed;
  ASSERT_TRUE(client_->Commit(commit, &committed).ok());
  v1::ForkRequest by_ref;
  by_ref.set_ref_name("main");
  by_ref.set_count(2);
  by_ref.set_prefix("by-ref");
  v1::ForkResponse response;
  ASSERT_TRUE(Fork(by_ref, &response).ok());
  v1::ForkRequest by_state;
  by_state.set_state_id(committed.state().id());
  by_state.add_session_ids("left");
  by_state.add_session_ids("right");
  ASSERT_TRUE(Fork(by_state, &response).ok());
  const std::vector<float> expected = Fingerprint("main");
  Start();
  for (const char* id : {"by-ref/1", "by-ref/2", "left", "right"}) {
    EXPECT_EQ(Fingerprint(id), expected) << id;
    EXPECT_EQ(client_->SessionTokens(id), prefix) << id;
  }
}

TEST_P(BranchingTest, AForkIsAllOrNothing) {
  client_->MustCreate("main");
  client_->MustCreate("main/3");
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(50, 1)).has_done);
  v1::ForkResponse response;
  const grpc::Status taken = ForkSession("main", 4, &response);
  EXPECT_EQ(taken.error_code(), StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(ReasonOf(taken), "SESSION_EXISTS") << taken.error_message();
  v1::Session session;
  EXPECT_EQ(client_->GetSession("main/1", &session).error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(client_->GetSession("main/4", &session).error_code(), StatusCode::NOT_FOUND);
  EXPECT_TRUE(client_->AppendTokens("main", SomeTokens(5, 2)).has_done);
  EXPECT_TRUE(ForkSession("main/3", 2, &response).ok());  // also of a session that read nothing
}

TEST_P(BranchingTest, ARepeatedForkGivesTheFirstAnswer) {
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(50, 1)).has_done);
  v1::ForkRequest request;
  request.set_session_id("main");
  request.set_count(2);
  request.set_request_id("once");
  v1::ForkResponse first, second;
  ASSERT_TRUE(Fork(request, &first).ok());
  ASSERT_TRUE(Fork(request, &second).ok());
  EXPECT_EQ(second.sessions_size(), 2);
  EXPECT_EQ(second.sessions(1).id(), first.sessions(1).id());
}

TEST_P(BranchingTest, RewindsEqualAStraightReadAndCostWhatTheySay) {
  const std::vector<int32_t> tokens = SomeTokens(1000, 5);
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", tokens).has_done);
  std::mt19937 random(1);
  for (const int position : {1, 255, 256, 257, 999, 1000, static_cast<int>(random() % 1000) + 1}) {
    SCOPED_TRACE(position);
    v1::ForkRequest fork;
    fork.set_session_id("main");
    const std::string id = "at/" + std::to_string(position);
    fork.add_session_ids(id);
    v1::ForkResponse forked;
    ASSERT_TRUE(Fork(fork, &forked).ok());
    v1::RewindResponse plan, done;
    ASSERT_TRUE(Rewind(id, position, /*dry_run=*/true, &plan).ok());
    EXPECT_EQ(plan.session().token_count(), 1000);
    EXPECT_EQ(plan.tokens_to_replay(), position == 1000 ? 0 : position % 256);
    EXPECT_EQ(plan.tokens_dropped(), 1000 - position);
    const grpc::Status status = Rewind(id, position, /*dry_run=*/false, &done);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(done.session().token_count(), position);
    EXPECT_EQ(done.tokens_to_replay(), plan.tokens_to_replay());
    v1::Usage usage;
    const std::vector<int32_t> kept(tokens.begin(), tokens.begin() + position);
    EXPECT_EQ(Fingerprint(id, &usage), Straight(kept));
    EXPECT_EQ(usage.tokens_replayed(), plan.tokens_to_replay());
    EXPECT_EQ(client_->SessionTokens(id), kept);
  }
}

TEST_P(BranchingTest, HistoryIsEditedByRewindingAndAppending) {
  const std::vector<int32_t> tokens = SomeTokens(700, 5), other = SomeTokens(30, 6);
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", tokens).has_done);
  v1::RewindResponse response;
  ASSERT_TRUE(Rewind("main", 600, /*dry_run=*/false, &response).ok());
  ASSERT_TRUE(client_->AppendTokens("main", other).has_done);
  const std::vector<int32_t> edited =
      Joined(std::vector<int32_t>(tokens.begin(), tokens.begin() + 600), other);
  EXPECT_EQ(client_->SessionTokens("main"), edited);
  EXPECT_EQ(Fingerprint("main"), Straight(edited));
  Start();
  EXPECT_EQ(client_->SessionTokens("main"), edited);
  ASSERT_TRUE(Rewind("main", 0, /*dry_run=*/false, &response).ok());
  EXPECT_EQ(response.base_state_id(), "");
  EXPECT_EQ(response.session().token_count(), 0);
  ASSERT_TRUE(client_->AppendTokens("main", other).has_done);
  EXPECT_EQ(Fingerprint("main"), Straight(other));
}

// A fork takes a slot with its first token: by then others may hold all of them.
TEST_P(BranchingTest, AForkTakesTheSlotOfAnIdleSession) {
  Start(/*slots=*/2);
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(50, 1)).has_done);
  v1::ForkResponse response;
  ASSERT_TRUE(ForkSession("main", 1, &response).ok());
  client_->MustCreate("idle");
  ASSERT_TRUE(client_->AppendTokens("idle", SomeTokens(20, 2)).has_done);
  const AppendResult read = client_->AppendTokens(response.sessions(0).id(), SomeTokens(10, 3));
  EXPECT_TRUE(read.has_done) << read.status.error_message();
  EXPECT_EQ(client_->SessionTokens("idle"), SomeTokens(20, 2));
}

TEST_P(BranchingTest, BadForksAndRewindsAreNamed) {
  client_->MustCreate("main");
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(50, 1)).has_done);
  const auto expect = [](const grpc::Status& status, StatusCode code, const std::string& part) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  };
  v1::ForkResponse response;
  expect(ForkSession("main", 0, &response), StatusCode::INVALID_ARGUMENT, "count");
  expect(ForkSession("main", 1025, &response), StatusCode::INVALID_ARGUMENT, "1024");
  expect(ForkSession("absent", 1, &response), StatusCode::NOT_FOUND, "absent");
  v1::ForkRequest request;
  request.set_count(1);
  expect(Fork(request, &response), StatusCode::INVALID_ARGUMENT, "prefix");
  request.set_prefix("x");
  expect(Fork(request, &response), StatusCode::INVALID_ARGUMENT, "source");
  request.set_state_id("nonsense");
  expect(Fork(request, &response), StatusCode::INVALID_ARGUMENT, "state_id");
  request.set_state_id("st-" + std::string(40, '0'));
  expect(Fork(request, &response), StatusCode::NOT_FOUND, "st-000");
  request.set_session_id("main");
  request.add_session_ids("y");
  expect(Fork(request, &response), StatusCode::INVALID_ARGUMENT, "session_ids");
  request.clear_count();
  request.clear_prefix();
  request.add_session_ids("y");
  expect(Fork(request, &response), StatusCode::INVALID_ARGUMENT, "repeats");
  v1::RewindResponse rewound;
  expect(Rewind("main", -1, false, &rewound), StatusCode::INVALID_ARGUMENT, "token_count");
  expect(Rewind("main", 51, false, &rewound), StatusCode::INVALID_ARGUMENT, "50");
  expect(Rewind("absent", 1, false, &rewound), StatusCode::NOT_FOUND, "absent");
  EXPECT_EQ(client_->SessionTokens("main"), SomeTokens(50, 1));
}

INSTANTIATE_TEST_SUITE_P(Models, BranchingTest, testing::ValuesIn(GoldenModelNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace anabranch
