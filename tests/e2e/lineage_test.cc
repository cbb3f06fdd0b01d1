// Checkpoint policies and logs over a real socket: which positions a session keeps, what going back
// costs, and that going back gives the bits of a straight read whatever was thinned.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using grpc::StatusCode;

// With a state of constant size, and with keys and values of attention beside it.
class LineageTest : public testing::TestWithParam<const char*> {
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

  grpc::Status Create(const std::string& id, const v1::CheckpointPolicy& policy) {
    v1::CreateSessionRequest request;
    request.set_session_id(id);
    *request.mutable_checkpoints() = policy;
    v1::CreateSessionResponse response;
    return client_->sessions().CreateSession(TestClient::Context().get(), request, &response);
  }
  static v1::CheckpointPolicy Grid(int64_t every) {
    v1::CheckpointPolicy policy;
    policy.set_every(every);
    return policy;
  }
  grpc::Status GetLog(const v1::GetLogRequest& request, v1::GetLogResponse* response) {
    return client_->states().GetLog(TestClient::Context().get(), request, response);
  }
  // All pages.
  v1::GetLogResponse Log(const std::string& session, int32_t page_size = 7) {
    v1::GetLogRequest request;
    request.set_session_id(session);
    request.set_page_size(page_size);
    v1::GetLogResponse all, page;
    do {
      const grpc::Status status = GetLog(request, &page);
      EXPECT_TRUE(status.ok()) << status.error_message();
      EXPECT_LE(page.entries_size(), page_size);
      all.mutable_entries()->MergeFrom(page.entries());
      all.set_token_count(page.token_count());
      request.set_page_token(page.next_page_token());
    } while (!page.next_page_token().empty());
    return all;
  }
  static std::vector<int64_t> Positions(const v1::GetLogResponse& log, const std::string& kind) {
    std::vector<int64_t> positions;
    for (const v1::LogEntry& entry : log.entries()) {
      if (entry.state().kind() == kind) positions.push_back(entry.state().token_count());
    }
    return positions;
  }
  static int64_t Predicted(const v1::GetLogResponse& log, int64_t position) {
    for (const v1::LogEntry& entry : log.entries()) {
      if (entry.state().token_count() <= position) return position - entry.state().token_count();
    }
    return position;
  }
  void ForkTo(const std::string& source, const std::string& id) {
    v1::ForkRequest fork;
    fork.set_session_id(source);
    fork.add_session_ids(id);
    v1::ForkResponse forked;
    const grpc::Status status =
        client_->sessions().Fork(TestClient::Context().get(), fork, &forked);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  std::vector<float> Straight(const std::vector<int32_t>& tokens) {
    const std::string id = "straight/" + std::to_string(++straight_);
    v1::CheckpointPolicy none;
    none.set_every(-1);
    none.set_skip_turn_ends(true);
    EXPECT_TRUE(Create(id, none).ok());
    EXPECT_TRUE(client_->AppendTokens(id, tokens).has_done);
    EXPECT_EQ(Log(id).entries_size(), 0);
    return client_->Fingerprint(id);
  }
  v1::CommitResponse Mark(const std::string& id, const std::string& mark) {
    v1::CommitRequest request;
    request.set_session_id(id);
    request.set_mark(mark);
    v1::CommitResponse response;
    const grpc::Status status = client_->Commit(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
  int straight_ = 0;
};

TEST_P(LineageTest, AnyPositionCostsWhatTheLogSaysAndEqualsAStraightRead) {
  const std::vector<int32_t> tokens = SomeTokens(1500, 3);
  ASSERT_TRUE(Create("main", Grid(16)).ok());
  for (const auto& [from, to] : {std::pair(0, 700), std::pair(700, 1237), std::pair(1237, 1500)}) {
    const std::vector<int32_t> turn(tokens.begin() + from, tokens.begin() + to);
    ASSERT_TRUE(client_->AppendTokens("main", turn).has_done);
  }
  const v1::GetLogResponse log = Log("main");
  EXPECT_EQ(log.token_count(), 1500);
  EXPECT_EQ(Positions(log, "turn"), (std::vector<int64_t>{1500, 1237, 700}));
  EXPECT_LE(Positions(log, "grid").size(), 16u);  // of 90: about 2 log2(1500 / 16)
  std::mt19937 random(7);
  for (int i = 0; i < 12; ++i) {
    const int64_t position = i < 3 ? std::vector<int64_t>{1, 1499, 1237}[i] : random() % 1500 + 1;
    SCOPED_TRACE(position);
    const std::string id = "at/" + std::to_string(i);
    ForkTo("main", id);
    v1::RewindResponse done;
    ASSERT_TRUE(client_->Rewind(id, position, /*dry_run=*/false, &done).ok());
    EXPECT_EQ(done.tokens_to_replay(), Predicted(log, position));
    EXPECT_LE(done.tokens_to_replay(), std::max<int64_t>(1500 - position, 0) + 32);
    if (i == 6) Start();
    v1::Usage usage;
    const std::vector<int32_t> kept(tokens.begin(), tokens.begin() + position);
    EXPECT_EQ(client_->Fingerprint(id, &usage), Straight(kept));
    EXPECT_EQ(usage.tokens_replayed(), Predicted(log, position));
    EXPECT_EQ(client_->SessionTokens(id), kept);
  }
}

TEST_P(LineageTest, WhatIsThinnedKeepsItsTokensAndCannotBeStartedFrom) {
  const std::vector<int32_t> tokens = SomeTokens(640, 3);
  ASSERT_TRUE(Create("main", Grid(16)).ok());
  ASSERT_TRUE(client_->AppendTokens("main", tokens).has_done);
  v1::GetLineageRequest request;
  request.set_id(Log("main").entries(0).state().id());
  request.set_page_size(1000);
  v1::GetLineageResponse lineage;
  ASSERT_TRUE(client_->states().GetLineage(TestClient::Context().get(), request, &lineage).ok());
  EXPECT_EQ(lineage.states_size(), 40);
  std::vector<std::string> thinned;
  for (const v1::State& state : lineage.states()) {
    if (!state.thinned()) continue;
    thinned.push_back(state.id());
    EXPECT_EQ(state.size_bytes(), 0);
    EXPECT_EQ(state.span_token_count(), 16);
  }
  EXPECT_EQ(static_cast<int>(thinned.size()), 40 - Log("main").entries_size());
  ASSERT_FALSE(thinned.empty());
  v1::CreateSessionRequest create;
  create.set_session_id("no");
  create.set_state_id(thinned.front());
  v1::CreateSessionResponse created;
  grpc::Status status =
      client_->sessions().CreateSession(TestClient::Context().get(), create, &created);
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "STATE_THINNED") << status.error_message();
  v1::SetRefRequest ref;
  ref.set_name("no");
  ref.set_state_id(thinned.front());
  v1::Ref set;
  status = client_->states().SetRef(TestClient::Context().get(), ref, &set);
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION) << status.error_message();
  // A history that begins alike goes on from what is left.
  v1::CreateSessionRequest again;
  again.set_session_id("again");
  *again.mutable_history() =
      TokenContent(std::vector<int32_t>(tokens.begin(), tokens.begin() + 600));
  status = client_->sessions().CreateSession(TestClient::Context().get(), again, &created);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(created.usage().tokens_read(), Predicted(Log("main"), 600));
}

TEST_P(LineageTest, WhatClientsNamedIsNeverThinned) {
  ASSERT_TRUE(Create("main", Grid(16)).ok());
  std::vector<std::string> kept;
  const auto grow = [&](int seed) {
    ASSERT_TRUE(
        client_->AppendTokens("main", SomeTokens(48, seed), /*no_checkpoint=*/true).has_done);
  };
  grow(1);
  kept.push_back(Log("main").entries(0).state().id());  // on the grid, then named by a ref
  v1::SetRefRequest ref;
  ref.set_name("named");
  ref.set_state_id(kept.back());
  v1::Ref set;
  ASSERT_TRUE(client_->states().SetRef(TestClient::Context().get(), ref, &set).ok());
  grow(2);
  const v1::CommitResponse marked = Mark("main", "here");
  EXPECT_EQ(marked.ref().name(), "main/marks/here");
  EXPECT_EQ(marked.state().token_count(), 96);
  kept.push_back(marked.state().id());
  grow(3);
  kept.push_back(Log("main").entries(0).state().id());
  v1::UpdateStateRequest pin;
  pin.set_id(kept.back());
  pin.mutable_update_mask()->add_paths("pinned");
  pin.set_pinned(true);
  v1::State pinned;
  ASSERT_TRUE(client_->states().UpdateState(TestClient::Context().get(), pin, &pinned).ok());
  grow(4);
  ForkTo("main", "fork");
  kept.push_back(Log("fork").entries(0).state().id());
  ASSERT_TRUE(client_->AppendTokens("fork", {1, 2, 3}).has_done);
  v1::CloseSessionRequest close;
  close.set_session_id("fork");
  v1::CloseSessionResponse closed;
  ASSERT_TRUE(client_->sessions().CloseSession(TestClient::Context().get(), close, &closed).ok());
  for (int i = 0; i < 20; ++i) grow(10 + i);
  v1::GetStateRequest get;
  for (const std::string& id : kept) {
    get.set_id(id);
    v1::State state;
    ASSERT_TRUE(client_->states().GetState(TestClient::Context().get(), get, &state).ok());
    EXPECT_FALSE(state.thinned()) << id << " at " << state.token_count();
    EXPECT_GT(state.size_bytes(), 0);
  }
  EXPECT_LT(Log("main").entries_size(), 30);  // of 72 on the grid
}

TEST_P(LineageTest, APolicyLimitsWhatStaysAndCanChange) {
  v1::CheckpointPolicy all = Grid(16);
  all.set_thinning(v1::THINNING_NONE);
  ASSERT_TRUE(Create("main", all).ok());
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(480, 1)).has_done);
  EXPECT_EQ(Log("main").entries_size(), 30);
  v1::UpdateSessionRequest update;
  update.set_session_id("main");
  *update.mutable_checkpoints() = all;
  update.mutable_checkpoints()->set_max_states(5);
  v1::Session session;
  ASSERT_TRUE(
      client_->sessions().UpdateSession(TestClient::Context().get(), update, &session).ok());
  EXPECT_EQ(session.checkpoints().max_states(), 5);
  Start();  // the policy survives
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(16, 2)).has_done);
  EXPECT_LE(Positions(Log("main"), "grid").size(), 5u);
  EXPECT_EQ(Positions(Log("main"), "turn").size(), 2u);
  update.mutable_checkpoints()->set_thin_turn_ends(true);
  update.mutable_checkpoints()->set_max_states(1);
  ASSERT_TRUE(
      client_->sessions().UpdateSession(TestClient::Context().get(), update, &session).ok());
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(16, 3)).has_done);
  EXPECT_LE(Log("main").entries_size(), 2);  // the head, and one
  update.mutable_checkpoints()->set_every(3);
  const grpc::Status bad =
      client_->sessions().UpdateSession(TestClient::Context().get(), update, &session);
  EXPECT_EQ(bad.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(bad.error_message().find("checkpoints.every"), std::string::npos);
}

TEST_P(LineageTest, ALogNamesRefsSessionsAndForks) {
  ASSERT_TRUE(Create("main", v1::CheckpointPolicy()).ok());
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(30, 1)).has_done);
  Mark("main", "one");
  ForkTo("main", "left");
  ASSERT_TRUE(client_->AppendTokens("main", SomeTokens(10, 2), /*no_checkpoint=*/true).has_done);
  ASSERT_TRUE(client_->AppendTokens("left", SomeTokens(20, 3)).has_done);
  const v1::GetLogResponse main = Log("main"), left = Log("left");
  EXPECT_EQ(main.token_count(), 40);
  ASSERT_EQ(main.entries_size(), 1);
  EXPECT_EQ(main.entries(0).ref_names(0), "main/marks/one");
  EXPECT_EQ(main.entries(0).session_ids(0), "main");
  EXPECT_EQ(main.entries(0).next_token_count(), 40);
  ASSERT_EQ(left.entries_size(), 2);
  EXPECT_EQ(left.entries(0).next_token_count(), 50);
  EXPECT_EQ(left.entries(1).next_token_count(), 50);
  EXPECT_EQ(left.entries(1).child_count(), 1);
  v1::GetLogRequest request;
  v1::GetLogResponse response;
  EXPECT_EQ(GetLog(request, &response).error_code(), StatusCode::INVALID_ARGUMENT);
  request.set_session_id("absent");
  EXPECT_EQ(GetLog(request, &response).error_code(), StatusCode::NOT_FOUND);
  request.set_page_token("nonsense");
  EXPECT_EQ(GetLog(request, &response).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_P(LineageTest, AGraphHoldsEveryParentAndJumpsOverWhatWasThinned) {
  ASSERT_TRUE(Create("ann", Grid(16)).ok());
  ASSERT_TRUE(client_->AppendTokens("ann", SomeTokens(20, 1)).has_done);
  ForkTo("ann", "ben");
  ASSERT_TRUE(client_->AppendTokens("ann", SomeTokens(600, 2)).has_done);
  ASSERT_TRUE(client_->AppendTokens("ben", SomeTokens(40, 3)).has_done);
  v1::MergeRequest merge;
  merge.add_inputs()->set_id(Log("ann").entries(0).state().id());
  merge.add_inputs()->set_id(Log("ben").entries(0).state().id());
  merge.set_ref("both");
  v1::MergeResponse merged;
  const grpc::Status status = client_->states().Merge(TestClient::Context().get(), merge, &merged);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(merged.ancestor_id(), Log("ann").entries(Log("ann").entries_size() - 2).state().id());
  const auto graph = [&](const std::string& state, bool ancestors_only, int32_t max_states) {
    v1::GetGraphRequest request;
    if (!state.empty()) request.set_state_id(state);
    request.set_ancestors_only(ancestors_only);
    request.set_max_states(max_states);
    v1::GetGraphResponse response;
    const grpc::Status got =
        client_->states().GetGraph(TestClient::Context().get(), request, &response);
    EXPECT_TRUE(got.ok()) << got.error_message();
    return response;
  };
  const v1::GetGraphResponse all = graph("", false, 0);
  std::vector<std::string> ids;
  for (const v1::LogEntry& entry : all.entries()) {
    EXPECT_FALSE(entry.state().thinned());
    EXPECT_EQ(entry.base_ids_size(), entry.state().parent_ids_size());
    for (const std::string& base : entry.base_ids()) {
      EXPECT_EQ(std::count(ids.begin(), ids.end(), base), 0) << "a parent above its child";
    }
    ids.push_back(entry.state().id());
  }
  EXPECT_EQ(all.entries(0).ref_names(0), "both");
  EXPECT_EQ(all.entries(0).base_ids_size(), 2);
  EXPECT_FALSE(all.truncated());
  EXPECT_EQ(graph("both", true, 0).entries_size(), all.entries_size());
  EXPECT_EQ(graph(merge.inputs(1).id(), false, 0).entries_size(), all.entries_size());
  EXPECT_LT(graph(merge.inputs(1).id(), true, 0).entries_size(), all.entries_size());
  const v1::GetGraphResponse near = graph("both", false, 3);
  EXPECT_TRUE(near.truncated());
  EXPECT_EQ(near.entries_size(), 3);
}

TEST_P(LineageTest, StatisticsAreEqualForEqualStates) {
  const std::vector<int32_t> tokens = SomeTokens(300, 4);
  const auto stats = [&](const std::string& id) {
    v1::GetStateStatsRequest request;
    request.set_id(Log(id).entries(0).state().id());
    v1::StateStats response;
    const grpc::Status status =
        client_->states().GetStateStats(TestClient::Context().get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  };
  ASSERT_TRUE(Create("straight", Grid(-1)).ok());
  ASSERT_TRUE(client_->AppendTokens("straight", tokens).has_done);
  ASSERT_TRUE(Create("pieces", Grid(16)).ok());
  ASSERT_TRUE(client_->AppendTokens("pieces", {tokens.begin(), tokens.begin() + 77}).has_done);
  ASSERT_TRUE(client_->AppendTokens("pieces", {tokens.begin() + 77, tokens.end()}).has_done);
  v1::StateStats a = stats("straight"), b = stats("pieces");
  EXPECT_NE(a.state_id(), b.state_id());
  EXPECT_EQ(a.token_count(), 300);
  b.set_state_id(a.state_id());
  EXPECT_EQ(a.SerializeAsString(), b.SerializeAsString());
  for (const v1::TensorStats& tensor : a.tensors()) {
    EXPECT_GT(tensor.norms_size(), 0);
    EXPECT_EQ(tensor.nonfinite_count(), 0);
    EXPECT_GT(tensor.max_abs(), 0) << tensor.kind();
    const bool pages = tensor.kind() == "keys" || tensor.kind() == "values";
    if (pages) EXPECT_EQ(tensor.shape(0), 300);
    const bool second = pages || tensor.kind() == "window";
    EXPECT_EQ(tensor.norms_size(), tensor.kind() == "logits" ? 1 : tensor.shape(second ? 1 : 0));
  }
  EXPECT_EQ(a.tensors(a.tensors_size() - 1).kind(), "logits");
  ASSERT_TRUE(client_->AppendTokens("straight", {1}).has_done);
  EXPECT_NE(stats("straight").tensors(0).checksum(), b.tensors(0).checksum());
}

INSTANTIATE_TEST_SUITE_P(Models, LineageTest, testing::Values("mamba2", "granitemoehybrid_dense"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace anabranch
