// SIGKILL of the real server at random moments under four writing clients. Each client keeps a
// ledger of what was acknowledged: tokens called durable, states, its ref. After each restart
// nothing of it may be missing, and what is visible must be whole.
//
// ANABRANCH_CRASH_KILLS: kills (default 10). ANABRANCH_CRASH_SEED: repeats a run.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

constexpr int kClients = 4;
// Acknowledged calls a kill, on average; with fewer the run proves nothing.
constexpr int kMinCallsPerKill = 4;
// A session that has grown so long is left for a new one, so that restarts stay quick.
constexpr size_t kRetireTokens = 8000;
constexpr char kModel[] = "mamba2";

int FromEnv(const char* name, int fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::atoi(text);
}

// What one client was told. `tokens` is all it knows of its session: sent or seen, in order.
struct Ledger {
  std::string session;
  std::vector<int32_t> tokens;
  int64_t durable = 0;                    // acknowledged
  std::map<std::string, int64_t> states;  // acknowledged, with their token counts
  std::string committed;                  // the last acknowledged commit's state
  int acknowledged_calls = 0;
};

// Works on one session until the server is gone.
class Writer {
 public:
  Writer(const std::string& address, int seed, Ledger* ledger)
      : client_(address), random_(seed), ledger_(*ledger) {}

  void Run(const std::atomic<bool>& stop) {
    while (!stop) {
      bool alive = true;
      switch (random_() % 4) {
        case 0:
        case 1:
          alive = Append();
          break;
        case 2:
          alive = Generate();
          break;
        case 3:
          alive = Commit();
          break;
      }
      if (!alive) return;
      ++ledger_.acknowledged_calls;
    }
  }

 private:
  bool Append() {
    const auto tokens = SomeTokens(1 + random_() % 700, random_());
    v1::AppendRequest request;
    request.set_session_id(ledger_.session);
    request.set_no_checkpoint(random_() % 2);
    *request.mutable_content() = TokenContent(tokens);
    ledger_.tokens.insert(ledger_.tokens.end(), tokens.begin(), tokens.end());
    const AppendResult result = client_.Append({request}, [&](const v1::AppendResponse& event) {
      if (event.has_progress()) Acknowledge(event.progress().durable_token_count());
    });
    if (!result.has_done) return Gone(result.status);
    EXPECT_EQ(result.done.session().token_count(), static_cast<int64_t>(ledger_.tokens.size()));
    Acknowledge(result.done.session());
    return true;
  }

  bool Generate() {
    if (ledger_.tokens.empty()) return true;
    v1::GenerateRequest request;
    request.set_session_id(ledger_.session);
    request.set_max_tokens(1 + random_() % 40);
    request.set_ignore_eos(true);
    request.set_no_checkpoint(random_() % 2);
    request.mutable_sampling()->set_temperature(1);
    request.mutable_sampling()->set_seed(random_());
    const GenerateResult result = client_.Generate(request, [&](const v1::GenerateResponse& event) {
      for (const auto& token : event.delta().tokens()) ledger_.tokens.push_back(token.id());
      if (event.has_delta()) Acknowledge(event.delta().durable_token_count());
      return true;
    });
    if (!result.has_done) return Gone(result.status);
    EXPECT_EQ(result.done.session().token_count(), static_cast<int64_t>(ledger_.tokens.size()));
    Acknowledge(result.done.session());
    return true;
  }

  bool Commit() {
    if (ledger_.tokens.empty()) return true;
    v1::CommitRequest request;
    request.set_session_id(ledger_.session);
    v1::CommitResponse response;
    const grpc::Status status = client_.Commit(request, &response);
    if (!status.ok()) return Gone(status);
    EXPECT_EQ(response.ref().state_id(), response.state().id());
    EXPECT_EQ(response.state().token_count(), static_cast<int64_t>(ledger_.tokens.size()));
    ledger_.committed = response.state().id();
    Acknowledge(response.session());
    return true;
  }

  void Acknowledge(int64_t durable) { ledger_.durable = std::max(ledger_.durable, durable); }
  void Acknowledge(const v1::Session& session) {
    Acknowledge(session.token_count());
    if (!session.head_state_id().empty()) {
      ledger_.states[session.head_state_id()] = session.head_token_count();
    }
  }
  // The only error there may be is the server's death.
  static bool Gone(const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
    return false;
  }

  TestClient client_;
  std::mt19937 random_;
  Ledger& ledger_;
};

bool IsPrefix(const std::vector<int32_t>& prefix, const std::vector<int32_t>& of) {
  return prefix.size() <= of.size() && std::equal(prefix.begin(), prefix.end(), of.begin());
}

std::vector<int32_t> StateTokens(TestClient& client, const std::string& id) {
  v1::GetTokensRequest request;
  request.set_state_id(id);
  v1::GetTokensResponse response;
  const grpc::Status status =
      client.states().GetTokens(TestClient::Context().get(), request, &response);
  EXPECT_TRUE(status.ok()) << id << ": " << status.error_message();
  return {response.ids().begin(), response.ids().end()};
}

// Nothing acknowledged is missing; the ledger then takes over what else survived.
void Verify(TestClient& client, Ledger* ledger) {
  const std::vector<int32_t> kept = client.SessionTokens(ledger->session);
  ASSERT_GE(static_cast<int64_t>(kept.size()), ledger->durable) << ledger->session;
  const size_t known = std::min(kept.size(), ledger->tokens.size());
  ASSERT_TRUE(std::equal(kept.begin(), kept.begin() + known, ledger->tokens.begin()))
      << ledger->session << ": other tokens than were sent";
  for (const auto& [id, count] : ledger->states) {
    const std::vector<int32_t> tokens = StateTokens(client, id);
    ASSERT_EQ(static_cast<int64_t>(tokens.size()), count) << id;
    ASSERT_TRUE(IsPrefix(tokens, kept)) << id;
  }
  if (!ledger->committed.empty()) {
    // A commit without an answer may have moved the ref on, never back.
    v1::GetStateRequest request;
    request.set_id(ledger->session);
    v1::State state;
    ASSERT_TRUE(client.states().GetState(TestClient::Context().get(), request, &state).ok());
    ASSERT_GE(state.token_count(), ledger->states[ledger->committed]);
  }
  if (!kept.empty()) {
    // Restores the head, checksums and all, and replays the log.
    v1::ScoreResponse score;
    const grpc::Status status = client.Score(ledger->session, {1, 2, 3}, &score);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  ledger->tokens = kept;
  ledger->durable = kept.size();
}

// Every state that anyone can see can be resumed.
void VerifyAllStatesAreWhole(TestClient& client) {
  v1::ListStatesRequest request;
  request.set_page_size(1000);
  std::vector<v1::State> states;
  do {
    v1::ListStatesResponse page;
    ASSERT_TRUE(client.states().ListStates(TestClient::Context().get(), request, &page).ok());
    states.insert(states.end(), page.states().begin(), page.states().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  for (const v1::State& state : states) {
    v1::CreateSessionRequest create;
    create.set_state_id(state.id());
    create.set_ref("-");
    v1::CreateSessionResponse created;
    const grpc::Status status = client.Create(create, &created);
    ASSERT_TRUE(status.ok()) << state.id() << ": " << status.error_message();
    ASSERT_EQ(created.usage().tokens_reused(), state.token_count());
    v1::CloseSessionRequest close;
    close.set_session_id(created.session().id());
    v1::CloseSessionResponse closed;
    ASSERT_TRUE(client.sessions().CloseSession(TestClient::Context().get(), close, &closed).ok());
  }
}

// The survivors have the bits of a server that was never killed.
void VerifyAgainstAnUninterruptedRun(TestClient& survivor, const std::vector<Ledger>& ledgers) {
  TempDir dir;
  auto server = Server::Start(TestConfig(GoldenModel(kModel), dir.path()));
  ASSERT_TRUE(server.ok()) << server.status();
  TestClient reference((*server)->address());
  for (const Ledger& ledger : ledgers) {
    if (ledger.tokens.empty()) continue;
    reference.MustCreate(ledger.session);
    ASSERT_TRUE(reference.AppendTokens(ledger.session, ledger.tokens).has_done);
    v1::ScoreResponse expected, actual;
    ASSERT_TRUE(reference.Score(ledger.session, SomeTokens(5, 3), &expected).ok());
    ASSERT_TRUE(survivor.Score(ledger.session, SomeTokens(5, 3), &actual).ok());
    ASSERT_EQ(expected.tokens_size(), 5);
    for (int i = 0; i < 5; ++i) {
      EXPECT_EQ(actual.tokens(i).logprob(), expected.tokens(i).logprob()) << ledger.session;
    }
  }
}

// Verifies each client's session; long ones are retired and followed by new ones.
void VerifyAndRenew(TestClient& client, int round, std::vector<Ledger>* ledgers,
                    std::vector<Ledger>* retired) {
  for (int i = 0; i < kClients; ++i) {
    Ledger& ledger = (*ledgers)[i];
    if (!ledger.session.empty()) {
      ASSERT_NO_FATAL_FAILURE(Verify(client, &ledger));
      if (ledger.tokens.size() < kRetireTokens) continue;
      retired->push_back(std::exchange(ledger, Ledger()));
    }
    ledger.session = "client" + std::to_string(i) + "/" + std::to_string(round);
    client.MustCreate(ledger.session);
  }
}

TEST(ServerCrashTest, NothingAcknowledgedIsLost) {
  const int kills = FromEnv("ANABRANCH_CRASH_KILLS", 10);
  const int seed = FromEnv("ANABRANCH_CRASH_SEED", std::random_device()() % 1000000);
  RecordProperty("seed", seed);
  SCOPED_TRACE("ANABRANCH_CRASH_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  TempDir dir;
  std::vector<Ledger> ledgers(kClients), retired;
  const std::vector<std::string> flags = {"--checkpoint-every", "256"};
  for (int kill = 0; kill <= kills; ++kill) {
    ServerProcess server(GoldenModel(kModel), dir.path(), flags);
    ASSERT_FALSE(server.address().empty()) << "after kill " << kill << ": " << server.ready_line();
    TestClient client(server.address());
    ASSERT_NO_FATAL_FAILURE(VerifyAndRenew(client, kill, &ledgers, &retired))
        << "after kill " << kill;
    if (kill == kills) {
      ledgers.insert(ledgers.end(), retired.begin(), retired.end());
      for (Ledger& ledger : ledgers) ASSERT_NO_FATAL_FAILURE(Verify(client, &ledger));
      ASSERT_NO_FATAL_FAILURE(VerifyAllStatesAreWhole(client));
      ASSERT_NO_FATAL_FAILURE(VerifyAgainstAnUninterruptedRun(client, ledgers));
      break;
    }
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < kClients; ++i) {
      threads.emplace_back([&, i, writer_seed = random()] {
        Writer(server.address(), writer_seed, &ledgers[i]).Run(stop);
      });
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100 + random() % 900));
    server.Kill();
    stop = true;
    for (std::thread& thread : threads) thread.join();
  }
  int calls = 0;
  int64_t tokens = 0;
  for (const Ledger& ledger : ledgers) {
    calls += ledger.acknowledged_calls;
    tokens += ledger.tokens.size();
  }
  std::printf("%d kills, %d acknowledged calls, %ld tokens, seed %d\n", kills, calls,
              static_cast<long>(tokens), seed);
  EXPECT_GE(calls, kills * kMinCallsPerKill) << "void: too little load to mean anything";
}

}  // namespace
}  // namespace anabranch
