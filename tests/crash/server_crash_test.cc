// SIGKILL of the real server at random moments under writing clients. Each client keeps a ledger of
// what was acknowledged: tokens called durable, states, its ref, request ids. After each restart
// nothing of it may be missing, what is visible must be whole, and a repeated request id changes
// nothing: neither one that was answered nor the one that the kill left without an answer.
//
// ANABRANCH_CRASH_KILLS: kills (default 10). ANABRANCH_CRASH_CLIENTS: clients (4).
// ANABRANCH_CRASH_MIN_RATE: acknowledged calls a second below which the run is void (20).
// ANABRANCH_CRASH_SEED: repeats a run.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <map>
#include <random>
#include <thread>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

// A session that has grown so long is left for a new one, so that restarts stay quick.
constexpr size_t kRetireTokens = 8000, kRetireStates = 150;
constexpr size_t kRememberedRequests = 3;
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
  // The last appends and the last commit that were answered, by request id.
  std::map<std::string, v1::AppendRequest> answered;
  std::map<std::string, int64_t> answered_counts;
  std::string commit_request;
  int requests = 0;
  // The append that waits for its answer, or that the kill left without one.
  std::optional<v1::AppendRequest> open;
};

// Works on one session until the server is gone.
class Writer {
 public:
  Writer(const std::string& address, int seed, Ledger* ledger)
      : client_(address), random_(seed), ledger_(*ledger) {}

  void Run(const std::atomic<bool>& stop) {
    while (!stop) {
      bool alive = true;
      switch (random_() % 6) {
        case 0:
        case 1:
        case 2:
          alive = Append();
          break;
        case 3:
          alive = Generate();
          break;
        case 4:
          alive = Commit();
          break;
        case 5:
          alive = Recode();
          break;
      }
      if (!alive) return;
      ++ledger_.acknowledged_calls;
    }
  }

 private:
  bool Append() {
    // Most are short, so that many calls are under way at any moment; some cross checkpoints.
    const auto tokens = SomeTokens(1 + random_() % (random_() % 8 == 0 ? 700 : 40), random_());
    v1::AppendRequest request;
    request.set_session_id(ledger_.session);
    request.set_no_checkpoint(random_() % 2);
    request.set_request_id(NextRequestId());
    request.set_expected_token_count(ledger_.tokens.size());
    *request.mutable_content() = TokenContent(tokens);
    // A count of 0 is no check, so the retry of the first append could not tell what was kept.
    if (!ledger_.tokens.empty()) ledger_.open = request;
    ledger_.tokens.insert(ledger_.tokens.end(), tokens.begin(), tokens.end());
    const AppendResult result = client_.Append({request}, [&](const v1::AppendResponse& event) {
      if (event.has_progress()) Acknowledge(event.progress().durable_token_count());
    });
    if (!result.has_done) return Gone("Append", result.status);
    EXPECT_EQ(result.done.session().token_count(), static_cast<int64_t>(ledger_.tokens.size()));
    Acknowledge(result.done.session());
    ledger_.open.reset();
    ledger_.answered_counts[request.request_id()] = result.done.session().token_count();
    ledger_.answered[request.request_id()] = std::move(request);
    if (ledger_.answered.size() > kRememberedRequests) {
      ledger_.answered_counts.erase(ledger_.answered.begin()->first);
      ledger_.answered.erase(ledger_.answered.begin());
    }
    return true;
  }

  bool Generate() {
    if (ledger_.tokens.empty()) return true;
    v1::GenerateRequest request;
    request.set_session_id(ledger_.session);
    request.set_max_tokens(1 + random_() % 20);
    request.set_ignore_eos(true);
    request.set_no_checkpoint(random_() % 2);
    request.mutable_sampling()->set_temperature(1);
    request.mutable_sampling()->set_seed(random_());
    const GenerateResult result = client_.Generate(request, [&](const v1::GenerateResponse& event) {
      for (const auto& token : event.delta().tokens()) ledger_.tokens.push_back(token.id());
      if (event.has_delta()) Acknowledge(event.delta().durable_token_count());
      return true;
    });
    if (!result.has_done) return Gone("Generate", result.status);
    EXPECT_EQ(result.done.session().token_count(), static_cast<int64_t>(ledger_.tokens.size()));
    Acknowledge(result.done.session());
    return true;
  }

  bool Commit() {
    if (ledger_.tokens.empty()) return true;
    v1::CommitRequest request;
    request.set_session_id(ledger_.session);
    request.set_request_id(NextRequestId());
    v1::CommitResponse response;
    const grpc::Status status = client_.Commit(request, &response);
    if (!status.ok()) return Gone("Commit", status);
    EXPECT_EQ(response.ref().state_id(), response.state().id());
    EXPECT_EQ(response.state().token_count(), static_cast<int64_t>(ledger_.tokens.size()));
    ledger_.committed = response.state().id();
    ledger_.commit_request = request.request_id();
    Acknowledge(response.session());
    return true;
  }

  // Any state but the newest, which the session goes on from and which has to stay exact for the
  // comparison at the end. One that was thinned meanwhile cannot be recoded.
  bool Recode() {
    if (ledger_.states.size() < 2) return true;
    const auto newest =
        std::max_element(ledger_.states.begin(), ledger_.states.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    auto state = std::next(ledger_.states.begin(), random_() % ledger_.states.size());
    if (state->second == newest->second) return true;
    v1::RecodeStateRequest request;
    request.set_id(state->first);
    request.set_codec(random_() % 2 == 0 ? v1::STATE_CODEC_NEAR : v1::STATE_CODEC_COMPACT);
    v1::RecodeStateResponse response;
    const grpc::Status status =
        client_.states().RecodeState(TestClient::Context().get(), request, &response);
    if (status.error_code() == grpc::StatusCode::FAILED_PRECONDITION) return true;
    return status.ok() || Gone("RecodeState", status);
  }

  // In the order of their letters, the order in which they were made.
  std::string NextRequestId() {
    char number[16];
    std::snprintf(number, sizeof(number), "%09d", ledger_.requests++);
    return ledger_.session + "." + number;
  }

  void Acknowledge(int64_t durable) { ledger_.durable = std::max(ledger_.durable, durable); }
  void Acknowledge(const v1::Session& session) {
    Acknowledge(session.token_count());
    if (!session.head_state_id().empty()) {
      ledger_.states[session.head_state_id()] = session.head_token_count();
    }
  }
  // The only error there may be is the server's death.
  static bool Gone(const char* call, const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE)
        << call << ": " << status.error_message();
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

// Requests that were answered before the kill give the same answer and change nothing.
void RepeatAnswered(TestClient& client, const Ledger& ledger) {
  for (const auto& [id, request] : ledger.answered) {
    const AppendResult again = client.Append({request});
    ASSERT_TRUE(again.has_done) << id << ": " << again.status.error_message();
    ASSERT_EQ(again.done.session().token_count(), ledger.answered_counts.at(id)) << id;
  }
  if (!ledger.commit_request.empty()) {
    v1::CommitRequest request;
    request.set_session_id(ledger.session);
    request.set_request_id(ledger.commit_request);
    v1::CommitResponse again;
    const grpc::Status status = client.Commit(request, &again);
    ASSERT_TRUE(status.ok()) << ledger.commit_request << ": " << status.error_message();
    ASSERT_EQ(again.state().id(), ledger.committed);
  }
  ASSERT_EQ(client.SessionTokens(ledger.session), ledger.tokens) << "a repeat changed the session";
}

// The retry that a client would send. It is there once afterwards, whether the kill came before the
// call took effect or after; if it took effect in part, the count says so and nothing is added.
void RepeatOpen(TestClient& client, Ledger* ledger) {
  const v1::AppendRequest request = *std::exchange(ledger->open, std::nullopt);
  const size_t before = request.expected_token_count(), kept = ledger->tokens.size();
  std::vector<int32_t> whole(ledger->tokens.begin(), ledger->tokens.begin() + before);
  for (const auto& id : request.content().tokens().ids()) whole.push_back(id);
  const AppendResult again = client.Append({request});
  const std::vector<int32_t> now = client.SessionTokens(ledger->session);
  if (again.has_done) {
    ASSERT_EQ(now, whole) << ledger->session << ": the retried append is not there exactly once";
    ASSERT_EQ(again.done.session().token_count(), static_cast<int64_t>(whole.size()));
  } else {
    ASSERT_EQ(again.status.error_code(), grpc::StatusCode::ABORTED) << again.status.error_message();
    ASSERT_GT(kept, before) << "nothing of the append was kept, and yet its retry was refused";
    ASSERT_EQ(now, ledger->tokens);
  }
  ledger->tokens = now;
  ledger->durable = now.size();
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
  ASSERT_NO_FATAL_FAILURE(RepeatAnswered(client, *ledger));
  if (ledger->open.has_value()) ASSERT_NO_FATAL_FAILURE(RepeatOpen(client, ledger));
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
  for (size_t i = 0; i < ledgers->size(); ++i) {
    Ledger& ledger = (*ledgers)[i];
    if (!ledger.session.empty()) {
      ASSERT_NO_FATAL_FAILURE(Verify(client, &ledger));
      if (ledger.tokens.size() < kRetireTokens && ledger.states.size() < kRetireStates) continue;
      retired->push_back(std::exchange(ledger, Ledger()));
    }
    ledger.session = "client" + std::to_string(i) + "/" + std::to_string(round);
    client.MustCreate(ledger.session);
  }
}

// Lets the clients work for a random time, then kills the server; returns how long they worked.
double WorkUntilKilled(ServerProcess& server, std::vector<Ledger>* ledgers, std::mt19937& random) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  const auto start = std::chrono::steady_clock::now();
  for (Ledger& ledger : *ledgers) {
    threads.emplace_back([&server, &stop, &ledger, writer_seed = random()] {
      Writer(server.address(), writer_seed, &ledger).Run(stop);
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(100 + random() % 900));
  server.Kill();
  const std::chrono::duration<double> worked = std::chrono::steady_clock::now() - start;
  stop = true;
  for (std::thread& thread : threads) thread.join();
  return worked.count();
}

TEST(ServerCrashTest, NothingAcknowledgedIsLost) {
  const int kills = FromEnv("ANABRANCH_CRASH_KILLS", 10);
  const int clients = FromEnv("ANABRANCH_CRASH_CLIENTS", 4);
  const int min_rate = FromEnv("ANABRANCH_CRASH_MIN_RATE", 20);
  const int seed = FromEnv("ANABRANCH_CRASH_SEED", std::random_device()() % 1000000);
  RecordProperty("seed", seed);
  SCOPED_TRACE("ANABRANCH_CRASH_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  TempDir dir;
  std::vector<Ledger> ledgers(clients), retired;
  double seconds = 0;
  const std::vector<std::string> flags = {"--checkpoint-every", "256", "--slots",
                                          std::to_string(4 * clients)};
  for (int kill = 0; kill <= kills; ++kill) {
    ServerProcess server(GoldenModel(kModel), dir.path(), flags);
    ASSERT_FALSE(server.address().empty()) << "after kill " << kill << ": " << server.ready_line();
    TestClient client(server.address());
    ASSERT_NO_FATAL_FAILURE(VerifyAndRenew(client, kill, &ledgers, &retired))
        << "after kill " << kill;
    if (kill < kills) {
      seconds += WorkUntilKilled(server, &ledgers, random);
      continue;
    }
    ledgers.insert(ledgers.end(), retired.begin(), retired.end());
    for (Ledger& ledger : ledgers) ASSERT_NO_FATAL_FAILURE(Verify(client, &ledger));
    ASSERT_NO_FATAL_FAILURE(VerifyAllStatesAreWhole(client));
    ASSERT_NO_FATAL_FAILURE(VerifyAgainstAnUninterruptedRun(client, ledgers));
  }
  int calls = 0;
  int64_t tokens = 0;
  for (const Ledger& ledger : ledgers) {
    calls += ledger.acknowledged_calls;
    tokens += ledger.tokens.size();
  }
  const double rate = calls / std::max(seconds, 1e-9);
  std::printf(
      "%d kills, %d clients, %d acknowledged calls in %.1f s of load (%.0f a second), %ld tokens, "
      "seed %d\n",
      kills, clients, calls, seconds, rate, static_cast<long>(tokens), seed);
  EXPECT_GE(rate, min_rate) << "void: too little load to mean anything";
}

}  // namespace
}  // namespace anabranch
