// Starting, refusing to start, health, metrics and the way down.
#include <gtest/gtest.h>
#include <httplib.h>
#include <signal.h>

#include <fstream>
#include <thread>

#include "service/host_port.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

TEST(LifecycleTest, ASecondServerOnTheLibraryIsRefused) {
  TempDir dir;
  ServerProcess first(GoldenModel("mamba2"), dir.path());
  ASSERT_FALSE(first.address().empty());
  const CommandResult second =
      RunAnabranchd({"serve", "--model", GoldenModel("mamba2"), "--data", dir.path(), "--listen",
                     "127.0.0.1:0", "--metrics", "off", "--log-level", "off"});
  EXPECT_EQ(second.exit_status, 1);
  EXPECT_EQ(second.output.find("anabranchd: "), 0u) << second.output;
  EXPECT_EQ(std::count(second.output.begin(), second.output.end(), '\n'), 1) << second.output;
}

TEST(LifecycleTest, ATakenPortIsRefused) {
  TempDir dir, other;
  ServerProcess first(GoldenModel("mamba2"), dir.path());
  ASSERT_FALSE(first.address().empty());
  const CommandResult second =
      RunAnabranchd({"serve", "--model", GoldenModel("mamba2"), "--data", other.path(), "--listen",
                     first.address(), "--metrics", "off", "--log-level", "off"});
  EXPECT_EQ(second.exit_status, 1);
  EXPECT_NE(second.output.find("port is in use"), std::string::npos) << second.output;
}

TEST(LifecycleTest, AFolderThatIsNoModelIsRefused) {
  TempDir dir, model;
  for (const char* config : {"", "{", "{\"model_type\": \"nonsense\"}"}) {
    std::ofstream(model.path() + "/config.json") << config;
    const CommandResult result =
        RunAnabranchd({"serve", "--model", model.path(), "--data", dir.path(), "--listen",
                       "127.0.0.1:0", "--metrics", "off", "--log-level", "off"});
    EXPECT_EQ(result.exit_status, 1);
    EXPECT_EQ(result.output.find("anabranchd: "), 0u) << result.output;
  }
}

TEST(LifecycleTest, BadFlagsAreNamed) {
  TempDir dir;
  ServerConfig config = TestConfig(GoldenModel("mamba2"), dir.path());
  config.slots = 0;
  EXPECT_NE(Server::Start(config).status().message().find("--slots"), std::string::npos);
  config = TestConfig(GoldenModel("mamba2"), dir.path());
  config.listen = "nonsense";
  EXPECT_NE(Server::Start(config).status().message().find("nonsense"), std::string::npos);
  config = TestConfig(GoldenModel("mamba2"), dir.path());
  config.dtype = "int4";
  EXPECT_NE(Server::Start(config).status().message().find("--dtype"), std::string::npos);
  EXPECT_NE(RunAnabranchd({"serve"}).exit_status, 0);
  EXPECT_NE(RunAnabranchd({"--version"}).output.find("anabranchd "), std::string::npos);
}

TEST(LifecycleTest, AStateOfAnotherModelIsRefused) {
  TempDir dir;
  std::string state_id;
  {
    auto server = Server::Start(TestConfig(GoldenModel("mamba2"), dir.path()));
    ASSERT_TRUE(server.ok()) << server.status();
    TestClient client((*server)->address());
    client.MustCreate("a");
    const AppendResult appended = client.AppendTokens("a", SomeTokens(10, 1));
    ASSERT_TRUE(appended.has_done);
    state_id = appended.done.session().head_state_id();
  }
  auto server = Server::Start(TestConfig(GoldenModel("mamba"), dir.path()));
  ASSERT_TRUE(server.ok()) << server.status();
  TestClient client((*server)->address());
  v1::CreateSessionRequest request;
  request.set_state_id(state_id);
  v1::CreateSessionResponse response;
  grpc::Status status = client.Create(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "MODEL_MISMATCH");
  status = client.AppendTokens("a", {1}).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "MODEL_MISMATCH");
  // A history of the same tokens finds nothing: states of models never mix.
  v1::CreateSessionRequest history;
  *history.mutable_history() = TokenContent(SomeTokens(10, 1));
  ASSERT_TRUE(client.Create(history, &response).ok());
  EXPECT_EQ(response.usage().tokens_reused(), 0);
}

TEST(LifecycleTest, AFullDiskRefusesNewContentAndServesTheRest) {
  TempDir dir;
  ServerConfig config = TestConfig(GoldenModel("mamba2"), dir.path());
  {
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    TestClient client((*server)->address());
    client.MustCreate("kept");
    ASSERT_TRUE(client.AppendTokens("kept", SomeTokens(50, 1)).has_done);
  }
  {
    ServerConfig full = config;
    full.reserved_disk_bytes = uint64_t{1} << 62;  // more than any disk has
    auto server = Server::Start(full);
    ASSERT_TRUE(server.ok()) << server.status();
    TestClient client((*server)->address());
    const grpc::Status refused = client.AppendTokens("kept", SomeTokens(5, 2)).status;
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(ReasonOf(refused), "LIBRARY_FULL") << refused.error_message();
    EXPECT_NE(refused.error_message().find("delete states"), std::string::npos);
    v1::Session session;
    ASSERT_TRUE(client.GetSession("kept", &session).ok());
    EXPECT_EQ(session.token_count(), 50);
    v1::ScoreResponse score;
    EXPECT_TRUE(client.Score("kept", {1, 2, 3}, &score).ok());
  }
  auto server = Server::Start(config);
  ASSERT_TRUE(server.ok()) << server.status();
  TestClient client((*server)->address());
  const AppendResult appended = client.AppendTokens("kept", SomeTokens(5, 2));
  ASSERT_TRUE(appended.has_done) << appended.status.error_message();
  EXPECT_EQ(appended.done.session().token_count(), 55);
}

TEST(LifecycleTest, SigtermLetsCallsFinishAndCapturesSessions) {
  TempDir dir;
  ServerProcess server(GoldenModel("mamba2"), dir.path());
  TestClient client(server.address());
  client.MustCreate("running");
  client.MustCreate("idle");
  ASSERT_TRUE(client.AppendTokens("running", SomeTokens(10, 1)).has_done);
  ASSERT_TRUE(client.AppendTokens("idle", SomeTokens(10, 2), /*no_checkpoint=*/true).has_done);
  v1::GenerateRequest request;
  request.set_session_id("running");
  request.set_max_tokens(2000);
  request.set_ignore_eos(true);
  bool signalled = false;
  grpc::Status refused;
  const GenerateResult result = client.Generate(request, [&](const v1::GenerateResponse&) {
    if (!std::exchange(signalled, true)) {
      server.Signal(SIGTERM);
      for (int i = 0; i < 200 && refused.ok(); ++i) {
        refused = client.AppendTokens("idle", {1}, /*no_checkpoint=*/true).status;
      }
    }
    return true;
  });
  EXPECT_TRUE(result.has_done) << result.status.error_message();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(refused), "DRAINING");
  EXPECT_EQ(server.Wait(), 0);
  ServerProcess again(GoldenModel("mamba2"), dir.path());
  TestClient after(again.address());
  v1::Session session;
  ASSERT_TRUE(after.GetSession("idle", &session).ok());
  EXPECT_GE(session.token_count(), 10);
  EXPECT_EQ(session.head_token_count(), session.token_count());
  ASSERT_TRUE(after.GetSession("running", &session).ok());
  EXPECT_EQ(session.token_count(), 2010);
}

TEST(LifecycleTest, ADrainCancelsWhatTakesTooLong) {
  TempDir dir;
  auto server = Server::Start(TestConfig(GoldenModel("mamba2"), dir.path()));
  ASSERT_TRUE(server.ok()) << server.status();
  TestClient client((*server)->address());
  client.MustCreate("a");
  auto context = TestClient::Context();
  auto held = client.sessions().Append(context.get());
  v1::AppendRequest request;
  request.set_session_id("a");
  *request.mutable_content() = TokenContent(SomeTokens(5, 2));
  ASSERT_TRUE(held->Write(request));
  v1::AppendResponse event;
  ASSERT_TRUE(held->Read(&event));
  const absl::Time start = absl::Now();
  (*server)->Drain(absl::Milliseconds(100));  // the client never ends its stream
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  while (held->Read(&event)) {
  }
  EXPECT_FALSE(held->Finish().ok());
  server->reset();
  auto again = Server::Start(TestConfig(GoldenModel("mamba2"), dir.path()));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(TestClient((*again)->address()).SessionTokens("a"), SomeTokens(5, 2));
}

TEST(LifecycleTest, MetricsCountCallsAndTokens) {
  TempDir dir;
  ServerConfig config = TestConfig(GoldenModel("mamba2"), dir.path());
  config.metrics = "127.0.0.1:0";
  auto server = Server::Start(config);
  ASSERT_TRUE(server.ok()) << server.status();
  TestClient client((*server)->address());
  client.MustCreate("a");
  ASSERT_TRUE(client.AppendTokens("a", SomeTokens(33, 1)).has_done);
  EXPECT_FALSE(client.AppendTokens("nobody", {1}).status.ok());
  const auto address = ParseHostPort((*server)->metrics_address());
  ASSERT_TRUE(address.ok());
  httplib::Client http(address->host, address->port);
  // A call is counted a moment after its client has the answer.
  for (const char* expected :
       {"anabranch_calls_total{method=\"Append\",code=\"OK\"} 1\n",
        "anabranch_calls_total{method=\"Append\",code=\"NOT_FOUND\"} 1\n",
        "anabranch_tokens_read_total 33\n", "anabranch_slots_total 8\n",
        "anabranch_host_states 0\n", "# TYPE anabranch_commit_seconds histogram\n"}) {
    std::string text;
    for (int i = 0; i < 1000 && text.find(expected) == std::string::npos; ++i) {
      if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      const auto response = http.Get("/metrics");
      ASSERT_TRUE(response);
      text = response->body;
    }
    EXPECT_NE(text.find(expected), std::string::npos) << expected << "\n" << text;
  }
  EXPECT_EQ(http.Get("/healthz")->status, 200);
  config.data = TempDir().path();
  config.metrics = (*server)->metrics_address();
  EXPECT_TRUE(absl::IsUnavailable(Server::Start(config).status()));
}

}  // namespace
}  // namespace anabranch
