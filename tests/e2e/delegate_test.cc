// Delegating over a real socket: branches say what sessions of their own would, whatever else runs,
// the source never changes, and what is kept is kept for good.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "absl/time/clock.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using grpc::StatusCode;

struct Delegated {
  std::map<int, std::vector<int32_t>> deltas;  // tokens by branch, as they came
  std::map<int, v1::BranchResult> results;
  v1::DelegateDone done;
  bool has_done = false;
  grpc::Status status;
};

// With a state of constant size, and with keys and values of attention beside it.
class DelegateTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    config_ = TestConfig(GoldenModel(GetParam()), dir_.path());
    Start();
  }
  void Start() {
    client_.reset();
    server_.reset();
    auto server = Server::Start(config_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }
  void Read(const std::string& id, const std::vector<int32_t>& tokens) {
    client_->MustCreate(id);
    ASSERT_TRUE(client_->AppendTokens(id, tokens).has_done);
  }
  // `count` branches from the session "main", each with an input of its own.
  static v1::DelegateRequest Branches(int count, int max_tokens = 8) {
    v1::DelegateRequest request;
    request.set_session_id("main");
    request.mutable_options()->set_max_tokens(max_tokens);
    request.mutable_options()->set_ignore_eos(true);
    for (int i = 1; i <= count; ++i) {
      *request.add_branches()->mutable_input() = TokenContent(Input(i));
    }
    return request;
  }
  static std::vector<int32_t> Input(int branch) { return SomeTokens(20 + branch, branch); }
  Delegated Delegate(const v1::DelegateRequest& request,
                     const std::function<bool(const v1::DelegateResponse&)>& on_event = nullptr,
                     int deadline_ms = 60000) {
    Delegated all;
    auto context = TestClient::Context(deadline_ms);
    auto stream = client_->sessions().Delegate(context.get(), request);
    v1::DelegateResponse event;
    while (stream->Read(&event)) {
      for (const v1::BranchDelta& delta : event.deltas()) {
        std::vector<int32_t>& tokens = all.deltas[delta.branch()];
        EXPECT_FALSE(all.results.contains(delta.branch())) << "a delta after its branch's result";
        tokens.insert(tokens.end(), delta.tokens().begin(), delta.tokens().end());
      }
      for (const v1::BranchResult& result : event.results()) {
        EXPECT_TRUE(all.results.emplace(result.branch(), result).second);
      }
      if (event.has_done()) all.done = event.done();
      all.has_done = event.has_done();
      if (on_event && !on_event(event)) context->TryCancel();
    }
    all.status = stream->Finish();
    return all;
  }
  Delegated MustDelegate(const v1::DelegateRequest& request) {
    Delegated all = Delegate(request);
    EXPECT_TRUE(all.status.ok()) << all.status.error_message();
    EXPECT_TRUE(all.has_done);
    EXPECT_EQ(all.results.size(), request.branches_size());
    for (const auto& [branch, result] : all.results) {
      EXPECT_EQ(all.deltas[branch], Tokens(result)) << branch;
    }
    return all;
  }
  static std::vector<int32_t> Tokens(const v1::BranchResult& result) {
    return {result.tokens().begin(), result.tokens().end()};
  }
  // What a session of its own generates after the tokens.
  std::vector<int32_t> Straight(const std::vector<int32_t>& tokens, int max_tokens = 8) {
    const std::string id = "straight/" + std::to_string(++straight_);
    Read(id, tokens);
    v1::GenerateRequest request;
    request.set_session_id(id);
    request.set_max_tokens(max_tokens);
    request.set_ignore_eos(true);
    EXPECT_TRUE(client_->Generate(request).has_done);
    const std::vector<int32_t> all = client_->SessionTokens(id);
    return {all.begin() + static_cast<ptrdiff_t>(tokens.size()), all.end()};
  }
  std::vector<std::string> States() {
    v1::ListStatesRequest request;
    request.set_page_size(1000);
    v1::ListStatesResponse response;
    EXPECT_TRUE(client_->states().ListStates(TestClient::Context().get(), request, &response).ok());
    std::vector<std::string> ids;
    for (const v1::State& state : response.states()) ids.push_back(state.id());
    std::sort(ids.begin(), ids.end());
    return ids;
  }
  std::vector<std::string> SessionIds() {
    v1::ListSessionsResponse response;
    EXPECT_TRUE(client_->sessions()
                    .ListSessions(TestClient::Context().get(), v1::ListSessionsRequest(), &response)
                    .ok());
    std::vector<std::string> ids;
    for (const v1::Session& session : response.sessions()) ids.push_back(session.id());
    return ids;
  }
  // Everything that a client can see of the source, but for whether it is in a slot right now.
  std::string Source() {
    v1::Session session;
    EXPECT_TRUE(client_->GetSession("main", &session).ok());
    session.clear_loaded();
    session.clear_update_time();
    return session.SerializeAsString() + TokenContent(client_->SessionTokens("main")).DebugString();
  }

  TempDir dir_;
  ServerConfig config_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
  int straight_ = 0;
};

std::vector<int32_t> Joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_P(DelegateTest, BranchesSayWhatSessionsOfTheirOwnWouldAndLeaveTheSourceAlone) {
  const std::vector<int32_t> prefix = SomeTokens(300, 7);
  Read("main", prefix);
  ASSERT_TRUE(client_->AppendTokens("main", {1, 2, 3}, /*no_checkpoint=*/true).has_done);
  const std::string before = Source();
  const std::vector<std::string> states = States();
  const int64_t slots = client_->Status().engine().slots_used();
  const Delegated all = MustDelegate(Branches(4));
  EXPECT_EQ(all.done.kept_size(), 0);
  EXPECT_EQ(all.done.failed_count(), 0);
  EXPECT_EQ(all.done.usage().tokens_read(), 21 + 22 + 23 + 24);
  EXPECT_EQ(all.done.usage().tokens_generated(), 4 * 8);
  EXPECT_EQ(Source(), before);
  EXPECT_EQ(States(), states);
  EXPECT_EQ(SessionIds(), std::vector<std::string>{"main"});
  EXPECT_EQ(client_->Status().engine().slots_used(), slots);
  for (const auto& [branch, result] : all.results) {
    EXPECT_FALSE(result.has_error()) << result.error().message();
    EXPECT_EQ(result.finish_reason(), v1::FINISH_REASON_MAX_TOKENS);
    EXPECT_EQ(result.token_count(), 303 + 20 + branch + 8);
    EXPECT_EQ(result.usage().tokens_reused(), 303);
    EXPECT_LT(result.score(), 0);
    EXPECT_EQ(Tokens(result), Straight(Joined(Joined(prefix, {1, 2, 3}), Input(branch))));
  }
}

TEST_P(DelegateTest, BranchesBeyondTheSlotsWaitForOne) {
  config_.slots = 3;
  config_.kv_pages = 9;
  Start();
  const std::vector<int32_t> prefix = SomeTokens(300, 7);
  Read("main", prefix);
  Read("other", SomeTokens(10, 8));  // idle, and makes room
  v1::DelegateRequest request = Branches(12);
  *request.mutable_branches(2)->mutable_input() = TokenContent(SomeTokens(700, 50));
  *request.mutable_branches(3)->mutable_input() = TokenContent(SomeTokens(700, 51));
  const Delegated all = MustDelegate(request);
  EXPECT_EQ(all.done.failed_count(), 0);
  for (const auto& [branch, result] : all.results) {
    EXPECT_FALSE(result.has_error()) << branch << ": " << result.error().message();
    const std::vector<int32_t> input =
        branch == 3 || branch == 4 ? SomeTokens(700, 47 + branch) : Input(branch);
    EXPECT_EQ(Tokens(result), Straight(Joined(prefix, input))) << branch;
  }
}

TEST_P(DelegateTest, WithOneSlotBranchesRunOneAfterTheOther) {
  config_.slots = 1;
  Start();
  const std::vector<int32_t> prefix = SomeTokens(40, 7);
  Read("main", prefix);
  const std::string before = Source();
  v1::DelegateRequest request = Branches(4);
  request.set_policy(v1::DELEGATE_POLICY_BEST);
  const Delegated all = MustDelegate(request);
  EXPECT_EQ(all.done.failed_count(), 0);
  ASSERT_EQ(all.done.kept_size(), 1);
  EXPECT_EQ(Source(), before);
  for (const auto& [branch, result] : all.results) {
    EXPECT_EQ(Tokens(result), Straight(Joined(prefix, Input(branch)))) << branch;
  }
}

TEST_P(DelegateTest, OptionsOfABranchReplaceThoseOfTheRequest) {
  Read("main", SomeTokens(30, 7));
  v1::DelegateRequest request = Branches(3);
  request.mutable_options()->mutable_sampling()->set_temperature(1);
  request.mutable_options()->mutable_sampling()->set_seed(1);
  for (int i : {1, 2}) request.mutable_branches(i)->clear_input();
  request.mutable_branches(1)->mutable_options()->set_max_tokens(3);
  request.mutable_branches(2)->mutable_options()->mutable_sampling();  // greedy again
  const Delegated all = MustDelegate(request);
  EXPECT_EQ(all.results.at(1).tokens_size(), 8);
  EXPECT_EQ(all.results.at(2).tokens_size(), 3);
  EXPECT_EQ(Tokens(all.results.at(3)), Straight(SomeTokens(30, 7)));
}

TEST_P(DelegateTest, KeptBranchesAreSessionsAlsoAfterARestart) {
  const std::vector<int32_t> prefix = SomeTokens(300, 7);
  Read("main", prefix);
  ASSERT_TRUE(client_->AppendTokens("main", {1, 2, 3}, /*no_checkpoint=*/true).has_done);
  const std::string before = Source();
  v1::DelegateRequest request = Branches(3);
  request.set_policy(v1::DELEGATE_POLICY_KEEP);
  request.set_prefix("tasks");
  (*request.mutable_labels())["kind"] = "task";
  const Delegated all = MustDelegate(request);
  EXPECT_EQ(Source(), before);
  ASSERT_EQ(all.done.kept_size(), 3);
  for (int round : {1, 2}) {
    for (const v1::KeptBranch& kept : all.done.kept()) {
      EXPECT_EQ(kept.session().id(), "tasks/" + std::to_string(kept.branch()));
      v1::Session session;
      ASSERT_TRUE(client_->GetSession(kept.session().id(), &session).ok());
      EXPECT_EQ(session.head_state_id(), kept.session().head_state_id());
      EXPECT_EQ(session.head_token_count(), session.token_count());
      EXPECT_EQ(session.labels().at("kind"), "task");
      EXPECT_EQ(client_->SessionTokens(session.id()),
                Joined(Joined(Joined(prefix, {1, 2, 3}), Input(kept.branch())),
                       Tokens(all.results.at(kept.branch()))));
    }
    if (round == 1) Start();
  }
  const v1::BranchResult& first = all.results.at(1);
  v1::GenerateRequest more;
  more.set_session_id("tasks/1");
  more.set_max_tokens(4);
  more.set_ignore_eos(true);
  ASSERT_TRUE(client_->Generate(more).has_done);
  const std::vector<int32_t> goes_on = client_->SessionTokens("tasks/1");
  EXPECT_EQ(std::vector<int32_t>(goes_on.end() - 4, goes_on.end()),
            Straight(Joined(Joined(Joined(prefix, {1, 2, 3}), Input(1)), Tokens(first)), 4));
}

TEST_P(DelegateTest, TheBestAreKeptAndTheOthersLeaveNoTrace) {
  Read("main", SomeTokens(60, 7));
  const size_t states = States().size();
  v1::DelegateRequest request = Branches(9);
  request.set_policy(v1::DELEGATE_POLICY_BEST);
  request.set_keep_best(2);
  *request.mutable_branches(8)->mutable_input() = TokenContent(Input(1));  // the same as the first
  const Delegated all = MustDelegate(request);
  std::vector<std::pair<double, int>> order;
  for (const auto& [branch, result] : all.results) order.emplace_back(-result.score(), branch);
  std::sort(order.begin(), order.end());
  ASSERT_EQ(all.done.kept_size(), 2);
  std::vector<std::string> names = {"main"};
  std::vector<std::string> heads;
  for (int i : {0, 1}) {
    EXPECT_EQ(all.done.kept(i).branch(), order[i].second);
    names.push_back("main/" + std::to_string(order[i].second));
    heads.push_back(all.done.kept(i).session().head_state_id());
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(SessionIds(), names);
  const size_t distinct = heads[0] == heads[1] ? 1 : 2;
  EXPECT_EQ(States().size(), states + distinct);
}

TEST_P(DelegateTest, StatesAndRefsAreSourcesToo) {
  const std::vector<int32_t> prefix = SomeTokens(40, 7);
  Read("main", prefix);
  v1::CommitRequest commit;
  commit.set_session_id("main");
  v1::CommitResponse committed;
  ASSERT_TRUE(client_->Commit(commit, &committed).ok());
  v1::DelegateRequest request = Branches(1);
  request.set_ref_name("main");
  EXPECT_EQ(Tokens(MustDelegate(request).results.at(1)), Straight(Joined(prefix, Input(1))));
  request.set_state_id(committed.state().id());
  EXPECT_EQ(Tokens(MustDelegate(request).results.at(1)), Straight(Joined(prefix, Input(1))));
  request.set_policy(v1::DELEGATE_POLICY_KEEP);
  EXPECT_EQ(ReasonOf(Delegate(request).status), "INVALID_FIELD") << "a state gives no names";
  request.set_prefix("named");
  EXPECT_EQ(MustDelegate(request).done.kept(0).session().id(), "named/1");
}

TEST_P(DelegateTest, CancellingDropsAllBranches) {
  config_.slots = 4;
  Start();
  Read("main", SomeTokens(60, 7));
  const std::string before = Source();
  const std::vector<std::string> states = States();
  for (v1::DelegatePolicy policy : {v1::DELEGATE_POLICY_DROP, v1::DELEGATE_POLICY_KEEP}) {
    v1::DelegateRequest request = Branches(8, /*max_tokens=*/16000);
    request.mutable_branches(0)->mutable_options()->set_max_tokens(1);
    request.set_policy(policy);
    // Cancelled once a branch has ended, and so was stored if it is to be kept.
    const Delegated all = Delegate(
        request, [](const v1::DelegateResponse& event) { return event.results().empty(); });
    EXPECT_EQ(all.status.error_code(), StatusCode::CANCELLED);
    EXPECT_FALSE(all.has_done);
    // The server ends the call on its own time.
    while (client_->Status().engine().slots_used() > 1) absl::SleepFor(absl::Milliseconds(5));
    while (States() != states) absl::SleepFor(absl::Milliseconds(5));
    EXPECT_EQ(SessionIds(), std::vector<std::string>{"main"});
    EXPECT_EQ(Source(), before);
  }
}

TEST_P(DelegateTest, ABranchThatFailsEndsNoOther) {
  config_.limits.max_context_tokens = 2000;
  Start();
  Read("main", SomeTokens(60, 7));
  v1::DelegateRequest request = Branches(4);
  request.set_policy(v1::DELEGATE_POLICY_KEEP);
  *request.mutable_branches(1)->mutable_input() = TokenContent(SomeTokens(1950, 1));
  request.mutable_branches(2)->mutable_options()->set_max_tokens(1900);
  request.mutable_branches(2)->mutable_options()->set_time_limit_ms(1);
  const Delegated all = MustDelegate(request);
  EXPECT_EQ(all.done.failed_count(), 2);
  EXPECT_EQ(all.results.at(2).error().code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(all.results.at(2).error().reason(), "LIMIT_EXCEEDED");
  EXPECT_EQ(all.results.at(3).error().code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_FALSE(all.results.at(1).has_error());
  EXPECT_FALSE(all.results.at(4).has_error());
  EXPECT_EQ(SessionIds(), (std::vector<std::string>{"main", "main/1", "main/4"}));
}

TEST_P(DelegateTest, TheCallsDeadlineEndsAllBranches) {
  Read("main", SomeTokens(60, 7));
  const Delegated all = Delegate(Branches(70, /*max_tokens=*/16000), nullptr, /*deadline_ms=*/200);
  EXPECT_EQ(all.status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  while (client_->Status().engine().slots_used() > 1) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(SessionIds(), std::vector<std::string>{"main"});
}

TEST_P(DelegateTest, ARepeatGivesTheFirstAnswer) {
  Read("main", SomeTokens(60, 7));
  v1::DelegateRequest request = Branches(2);
  request.set_policy(v1::DELEGATE_POLICY_KEEP);
  request.set_request_id("once");
  const Delegated first = MustDelegate(request);
  const Delegated second = Delegate(request);
  ASSERT_TRUE(second.status.ok()) << second.status.error_message();
  ASSERT_EQ(second.results.size(), 2);
  EXPECT_EQ(second.results.at(2).SerializeAsString(), first.results.at(2).SerializeAsString());
  EXPECT_EQ(second.done.SerializeAsString(), first.done.SerializeAsString());
}

TEST_P(DelegateTest, BadRequestsAreNamedAndRunNothing) {
  Read("main", SomeTokens(50, 1));
  const auto expect = [&](const v1::DelegateRequest& request, StatusCode code,
                          const std::string& part) {
    const Delegated all = Delegate(request);
    EXPECT_EQ(all.status.error_code(), code) << all.status.error_message();
    EXPECT_NE(all.status.error_message().find(part), std::string::npos)
        << all.status.error_message();
    EXPECT_TRUE(all.results.empty());
  };
  const auto bad = [](const std::function<void(v1::DelegateRequest&)>& change) {
    v1::DelegateRequest request = Branches(3);
    change(request);
    return request;
  };
  const StatusCode kInvalid = StatusCode::INVALID_ARGUMENT;
  expect(bad([](auto& r) { r.clear_session_id(); }), kInvalid, "source");
  expect(bad([](auto& r) { r.clear_branches(); }), kInvalid, "branches");
  expect(bad([](auto& r) { r.set_session_id("absent"); }), StatusCode::NOT_FOUND, "absent");
  expect(bad([](auto& r) { r.set_ref_name("absent"); }), StatusCode::NOT_FOUND, "absent");
  expect(bad([](auto& r) { r.set_state_id("nonsense"); }), kInvalid, "state_id");
  expect(bad([](auto& r) { r.set_policy(static_cast<v1::DelegatePolicy>(9)); }), kInvalid,
         "policy");
  expect(bad([](auto& r) { r.set_keep_best(1); }), kInvalid, "keep_best");
  expect(bad([](auto& r) { r.set_prefix("x"); }), kInvalid, "prefix");
  expect(bad([](auto& r) {
           r.set_policy(v1::DELEGATE_POLICY_BEST);
           r.set_keep_best(4);
         }),
         kInvalid, "must be 1 to 3");
  expect(bad([](auto& r) { r.mutable_options()->set_max_tokens(-1); }), kInvalid,
         "options.max_tokens");
  expect(bad([](auto& r) { r.mutable_branches(1)->mutable_options()->set_max_tokens(99999); }),
         kInvalid, "branches[1].options.max_tokens");
  expect(bad([](auto& r) { r.mutable_branches(1)->mutable_options()->set_time_limit_ms(-1); }),
         kInvalid, "branches[1].options.time_limit_ms");
  expect(bad([](auto& r) { r.mutable_options()->mutable_sampling()->set_temperature(-1); }),
         kInvalid, "options.sampling");
  expect(bad([](auto& r) { *r.mutable_branches(2)->mutable_input() = TokenContent({999999}); }),
         kInvalid, "branches[2].input");
  expect(bad([](auto& r) { r.set_expected_token_count(49); }), StatusCode::ABORTED, "50");
  expect(bad([](auto& r) { r.mutable_options()->set_reply(true); }),
         StatusCode::FAILED_PRECONDITION, "chat");
  client_->MustCreate("main/2");
  expect(bad([](auto& r) { r.set_policy(v1::DELEGATE_POLICY_KEEP); }), StatusCode::ALREADY_EXISTS,
         "main/2");
  client_->MustCreate("empty");
  expect(bad([](auto& r) {
           r.set_session_id("empty");
           r.mutable_branches(1)->clear_input();
         }),
         kInvalid, "branches[1].input");
  EXPECT_EQ(SessionIds(), (std::vector<std::string>{"empty", "main", "main/2"}));
}

INSTANTIATE_TEST_SUITE_P(Models, DelegateTest,
                         testing::Values("mamba2", "granitemoehybrid_dense", "jamba"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace anabranch
