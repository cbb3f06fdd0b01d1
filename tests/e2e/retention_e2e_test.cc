// What a user sees of expiry, quotas, the byte budget and garbage collection: over a real server,
// by API and command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

#include "absl/time/clock.h"
#include "clients/cpp/client.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/cli_run.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using testing::HasSubstr;

class RetentionE2eTest : public testing::Test {
 protected:
  RetentionE2eTest() : config_(TestConfig(GoldenModel("mamba2"), dir_.path())) {
    config_.retention.sweep_every = absl::Milliseconds(20);
  }
  void Start() {
    client_.reset();
    server_.reset();
    auto server = Server::Start(config_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<Client>(ClientOptions{.address = server_->address()});
  }
  // A session that has read `count` tokens of its own, committed to a ref of its name.
  std::string Read(const std::string& id, int count, int seed) {
    TestClient raw(server_->address());
    raw.MustCreate(id);
    EXPECT_TRUE(raw.AppendTokens(id, SomeTokens(count, seed)).has_done);
    v1::CommitRequest commit;
    commit.set_session_id(id);
    const auto committed = client_->Commit(commit);
    EXPECT_TRUE(committed.ok()) << committed.status();
    return committed.ok() ? committed->state().id() : "";
  }
  void CloseAndUnname(const std::string& id) {
    v1::CloseSessionRequest close;
    close.set_session_id(id);
    EXPECT_EQ(client_->CloseSession(close), absl::OkStatus());
    v1::DeleteRefRequest unname;
    unname.set_name(id);
    EXPECT_EQ(client_->DeleteRef(unname), absl::OkStatus());
  }
  int Run(std::vector<std::string> args) {
    CliRun run = RunCli(*server_, std::move(args));
    out_ = std::move(run.out);
    err_ = std::move(run.err);
    return run.code;
  }
  bool Exists(const std::string& state) { return client_->GetState(state).ok(); }
  // Waits as long as a loaded machine needs.
  template <typename Condition>
  static bool Eventually(Condition condition) {
    for (const absl::Time end = absl::Now() + absl::Seconds(60); absl::Now() < end;) {
      if (condition()) return true;
      absl::SleepFor(absl::Milliseconds(20));
    }
    return false;
  }

  TempDir dir_;
  ServerConfig config_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Client> client_;
  std::string out_, err_;
};

TEST_F(RetentionE2eTest, AStateThatMayGoGoesByItselfAndASessionsStateDoesNot) {
  Start();
  const std::string note = Read("note", 50, 1), held = Read("held", 50, 2);
  ASSERT_EQ(Run({"state", "expire", "note", "0s"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("now"));
  ASSERT_EQ(Run({"state", "expire", held, "0s"}), 0) << err_;
  absl::SleepFor(absl::Milliseconds(200));  // several sweeps
  EXPECT_TRUE(Exists(note));                // the ref and the session need it
  CloseAndUnname("note");
  EXPECT_TRUE(Eventually([&] { return !Exists(note); }));
  EXPECT_TRUE(Exists(held));
  EXPECT_GE(client_->GetStatus()->retention().expired_states(), 1);
}

TEST_F(RetentionE2eTest, ExpiryIsSetShownAndTakenBackOnTheCommandLine) {
  Start();
  Read("note", 50, 1);
  ASSERT_EQ(Run({"state", "expire", "note", "30d"}), 0) << err_;
  ASSERT_EQ(Run({"state", "show", "note"}), 0) << err_;
  EXPECT_THAT(out_, testing::AnyOf(HasSubstr("in 29 d"), HasSubstr("in 30 d")));
  ASSERT_EQ(Run({"state", "pin", "note"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("pinned   yes"));
  ASSERT_EQ(Run({"state", "label", "note", "topic=boats", "year=2030"}), 0) << err_;
  ASSERT_EQ(Run({"state", "label", "note", "year="}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("labels   topic=boats\n"));
  ASSERT_EQ(Run({"state", "expire", "note", "never"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("expires  never"));
  EXPECT_EQ(Run({"state", "expire", "note", "soon"}), 2);
  EXPECT_THAT(err_, HasSubstr("'soon' is no time"));
}

TEST_F(RetentionE2eTest, DefaultExpiryHoldsForStatesThatSessionsCapture) {
  config_.default_expiry = absl::Hours(48);
  Start();
  const std::string state = Read("note", 50, 1);
  const auto shown = client_->GetState(state);
  ASSERT_TRUE(shown.ok());
  const absl::Time expires = absl::FromUnixSeconds(shown->expire_time().seconds());
  EXPECT_GT(expires, absl::Now() + absl::Hours(47));
  EXPECT_LT(expires, absl::Now() + absl::Hours(49));
  ASSERT_EQ(Run({"status"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("states expire after 2 days"));
}

TEST_F(RetentionE2eTest, AQuotaIsRefusedByNameWithUseLimitAndRemedy) {
  config_.quotas.sessions = 1;
  config_.quotas.states = 2;
  Start();
  Read("first", 50, 1);
  v1::CreateSessionRequest create;
  create.set_session_id("second");
  const absl::Status refused = client_->CreateSession(create).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(refused), "QUOTA_EXCEEDED");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("raise --quota-sessions"));
  ASSERT_EQ(Run({"status"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("1 of 1 sessions"));
  const v1::TenantUse use = client_->GetStatus()->tenant_use();
  EXPECT_EQ(use.sessions(), 1);
  EXPECT_EQ(use.max_states(), 2);
  EXPECT_GT(use.bytes(), 0);

  // What a session has read stays, also if no state of it can be stored any more.
  TestClient raw(server_->address());
  grpc::Status status;
  for (int i = 0; i < 3 && status.ok(); ++i) {
    status = raw.AppendTokens("first", SomeTokens(20, 10 + i)).status;
  }
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr("the quota of states is used up"));
  EXPECT_GE(raw.SessionTokens("first").size(), 90u);
}

TEST_F(RetentionE2eTest, BeyondTheBudgetOldStatesAreArchivedAndSessionsGoOn) {
  Start();
  for (int i = 0; i < 6; ++i) {
    Read("s" + std::to_string(i), 60, i);
    TestClient raw(server_->address());
    ASSERT_TRUE(raw.AppendTokens("s" + std::to_string(i), SomeTokens(20, 50 + i)).has_done);
  }
  const int64_t bytes = client_->GetStatus()->retention().library_bytes();
  const std::vector<float> before = TestClient(server_->address()).Fingerprint("s0");
  for (int i = 0; i < 6; ++i) {  // the states before the sessions' heads are nobody's now
    v1::DeleteRefRequest unname;
    unname.set_name("s" + std::to_string(i));
    ASSERT_EQ(client_->DeleteRef(unname), absl::OkStatus());
  }
  config_.retention.budget = {.high_bytes = bytes * 3 / 4, .low_bytes = bytes * 2 / 3};
  Start();
  EXPECT_TRUE(Eventually(
      [&] { return client_->GetStatus()->retention().library_bytes() <= bytes * 3 / 4; }));
  const v1::ServerStatus status = *client_->GetStatus();
  EXPECT_GE(status.retention().evicted_states(), 2);
  EXPECT_EQ(status.retention().deleted_states(), 0);
  EXPECT_EQ(status.tenant_use().archived_states(), status.retention().evicted_states());
  EXPECT_EQ(TestClient(server_->address()).Fingerprint("s0"), before);
  ASSERT_EQ(Run({"status"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("budget"));
}

TEST_F(RetentionE2eTest, GarbageIsCollectedOnRequestWithAReport) {
  Start();
  const std::string state = Read("note", 50, 1);
  CloseAndUnname("note");
  v1::DeleteStateRequest remove;
  remove.set_id(state);
  ASSERT_EQ(client_->DeleteState(remove), absl::OkStatus());
  ASSERT_EQ(Run({"admin", "gc", "--dry-run"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("this was a dry run"));
  ASSERT_EQ(Run({"admin", "gc", "--full", "--json"}), 0) << err_;
  const auto report = nlohmann::json::parse(out_);
  EXPECT_EQ(report.value("stale_keys", 0), 0);
  EXPECT_GT(report.at("disk_bytes_before").get<int64_t>(), 0);
  ASSERT_EQ(Run({"status"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("collected"));
  std::vector<std::string> phases;
  ASSERT_TRUE(
      client_
          ->CollectGarbage(
              {}, [&](const v1::GarbageProgress& progress) { phases.push_back(progress.phase()); })
          .ok());
  EXPECT_EQ(phases.back(), "done");
}

}  // namespace
}  // namespace anabranch
