// Search over a real socket: the states that know are found, and only those that may be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/time/clock.h"
#include "statestore/search_index.h"
#include "tests/e2e/cli_run.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using grpc::StatusCode;

class SearchTest : public testing::Test {
 protected:
  void SetUp() override { Start(RecallModel()); }
  void Stop() {
    client_.reset();
    server_.reset();
  }
  void Start(const std::string& model) {
    Stop();
    auto server = Server::Start(TestConfig(model, dir_.path()));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }
  void Append(const std::string& id, const std::string& text) {
    v1::AppendRequest request;
    request.set_session_id(id);
    *request.mutable_content() = TextContent(text);
    ASSERT_TRUE(client_->Append({request}).has_done);
  }
  std::string Commit(const std::string& id, const std::string& label = "") {
    v1::CommitRequest request;
    request.set_session_id(id);
    if (!label.empty()) (*request.mutable_labels())["topic"] = label;
    v1::CommitResponse response;
    EXPECT_TRUE(client_->Commit(request, &response).ok());
    return response.state().id();
  }
  // A session that has read the text, committed to a ref of its own name; the state's id.
  std::string Tell(const std::string& id, const std::string& text, const std::string& label = "") {
    client_->MustCreate(id);
    Append(id, text);
    return Commit(id, label);
  }
  static v1::SearchRequest For(const std::string& text, int32_t rerank = -1) {
    v1::SearchRequest request;
    request.set_text(text);
    request.set_rerank(rerank);
    return request;
  }
  v1::SearchResponse Search(const v1::SearchRequest& request) {
    v1::SearchResponse response;
    const grpc::Status status =
        client_->states().Search(TestClient::Context().get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  // The refs (or ids) of those that were found by their words.
  std::vector<std::string> Names(const v1::SearchRequest& request) {
    std::vector<std::string> names;
    const v1::SearchResponse found = Search(request);
    for (const v1::SearchHit& hit : found.hits()) {
      if (hit.lexical_rank() == 0) continue;
      names.push_back(hit.ref().empty() ? hit.state().id() : hit.ref());
    }
    return names;
  }
  using List = std::vector<std::string>;

  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

TEST_F(SearchTest, TheStateThatKnowsIsFoundAmongDozens) {
  for (int i = 0; i < 40; ++i) {
    const std::string number = std::to_string(i);
    Tell("notes/" + number, "Note " + number + ": the valve in room " + number + " is closed.");
  }
  const std::string id = Tell("notes/boat", "My sister repainted the rowing boats in Lübeck.");
  const v1::SearchResponse found = Search(For("Where was a boat repainted?"));
  ASSERT_GE(found.hits_size(), 1);
  const v1::SearchHit& hit = found.hits(0);
  EXPECT_EQ(hit.state().id(), id);
  EXPECT_EQ(hit.ref(), "notes/boat");
  EXPECT_EQ(hit.session_id(), "notes/boat");
  EXPECT_EQ(hit.lexical_rank(), 1);
  EXPECT_GT(hit.lexical_score(), 0);
  EXPECT_GT(hit.score(), 0);
  EXPECT_NE(hit.snippet().find("rowing boats"), std::string::npos) << hit.snippet();
  EXPECT_EQ(found.states_searched(), 41);
  EXPECT_EQ(found.states_pending(), 0);
  v1::SearchRequest three = For("valve room closed");
  three.set_limit(3);
  EXPECT_EQ(Search(three).hits_size(), 3);
  EXPECT_EQ(Names(For("lubeck")), List{"notes/boat"}) << "diacritics";
  EXPECT_EQ(Names(For("\"Lübeck\" AND (NOT *")), List{"notes/boat"}) << "no syntax";
}

TEST_F(SearchTest, FiltersNarrowWhatIsSearched) {
  const std::string red = Tell("red", "The red lantern.", "colour");
  Tell("blue", "The blue lantern.");
  client_->MustCreate("red-fork-base");
  v1::ForkRequest fork;
  fork.set_session_id("red");
  fork.add_session_ids("redder");
  v1::ForkResponse forked;
  ASSERT_TRUE(client_->sessions().Fork(TestClient::Context().get(), fork, &forked).ok());
  Append("redder", " A second lantern.");
  Commit("redder");
  EXPECT_EQ(Names(For("lantern")).size(), 3u);
  v1::SearchRequest labelled = For("lantern");
  (*labelled.mutable_labels())["topic"] = "colour";
  EXPECT_EQ(Names(labelled), List{"red"});
  v1::SearchRequest below = For("lantern");
  below.set_descendant_of("red");
  EXPECT_EQ(Names(below), List{"redder"});
  below.set_descendant_of(red);
  EXPECT_EQ(Names(below), List{"redder"});
  v1::SearchRequest times = For("lantern");
  times.mutable_created_before()->set_seconds(1);
  EXPECT_EQ(Names(times), List{});
  EXPECT_EQ(Search(times).states_searched(), 0);
  times.clear_created_before();
  times.mutable_created_after()->set_seconds(1);
  EXPECT_EQ(Names(times).size(), 3u);
  v1::SearchRequest model = For("lantern");
  model.set_model_fingerprint("another");
  EXPECT_EQ(Names(model), List{});
}

TEST_F(SearchTest, OfOneHistoryTheNewestAndTheNamedAreFound) {
  const std::string first = Tell("log", "Monday: the harbour was calm.");
  Append("log", " Tuesday: fog.");
  const std::string second = Commit("log");
  Append("log", " Wednesday: storm.");
  const std::string third = Commit("log");
  EXPECT_EQ(Names(For("harbour")), List{"log"}) << "one hit for one history";
  EXPECT_EQ(Search(For("harbour")).hits(0).state().id(), third);
  v1::SetRefRequest ref;
  ref.set_name("monday");
  ref.set_state_id(first);
  v1::Ref set;
  ASSERT_TRUE(client_->states().SetRef(TestClient::Context().get(), ref, &set).ok());
  EXPECT_EQ(Names(For("harbour")).size(), 2u);
  v1::DeleteRefRequest remove;
  remove.set_name("monday");
  v1::DeleteRefResponse removed;
  ASSERT_TRUE(client_->states().DeleteRef(TestClient::Context().get(), remove, &removed).ok());
  EXPECT_EQ(Names(For("harbour")), List{"log"});
}

TEST_F(SearchTest, ADeletedStateIsNotFound) {
  const std::string id = Tell("gone", "The passphrase is heliotrope.");
  EXPECT_EQ(Names(For("heliotrope")), List{"gone"});
  v1::CloseSessionRequest close;
  close.set_session_id("gone");
  v1::CloseSessionResponse closed;
  ASSERT_TRUE(client_->sessions().CloseSession(TestClient::Context().get(), close, &closed).ok());
  v1::DeleteRefRequest ref;
  ref.set_name("gone");
  v1::DeleteRefResponse unnamed;
  ASSERT_TRUE(client_->states().DeleteRef(TestClient::Context().get(), ref, &unnamed).ok());
  EXPECT_EQ(Names(For("heliotrope")), List{id}) << "nothing goes on from it";
  v1::DeleteStateRequest remove;
  remove.set_id(id);
  v1::DeleteStateResponse removed;
  ASSERT_TRUE(client_->states().DeleteState(TestClient::Context().get(), remove, &removed).ok());
  EXPECT_EQ(Names(For("heliotrope")), List{});
}

TEST_F(SearchTest, AnIndexThatIsLostOrDamagedIsBuiltAnew) {
  Tell("kept", "The ferry leaves at noon.");
  const std::string index = dir_.path() + "/search";
  ASSERT_TRUE(std::filesystem::exists(index));
  Stop();
  std::filesystem::remove_all(index);
  Start(RecallModel());
  EXPECT_EQ(Names(For("ferry")), List{"kept"}) << "lost";
  Stop();
  std::ofstream(index + "/search.sqlite", std::ios::binary) << std::string(5000, 'x');
  Start(RecallModel());
  EXPECT_EQ(Names(For("ferry")), List{"kept"}) << "damaged";
  Tell("more", "The ferry was late.");
  Start(RecallModel());
  EXPECT_EQ(Names(For("ferry")).size(), 2u) << "reopened";
}

TEST_F(SearchTest, AnIndexThatIsDamagedUnderTheServerIsBuiltAnew) {
  for (int i = 0; i < 8; ++i) Tell("n/" + std::to_string(i), "Ferry number " + std::to_string(i));
  const std::string file = dir_.path() + "/search/search.sqlite";
  for (const char* suffix : {"", "-wal"}) {
    std::fstream damaged(file + suffix, std::ios::binary | std::ios::in | std::ios::out);
    damaged << std::string(std::filesystem::file_size(file + suffix), 'x');
  }
  Tell("more", "Ferry number 9");
  // At first a search may say that it is being built anew; then it finds all.
  for (int tries = 0; tries < 100; ++tries) {
    v1::SearchResponse found;
    const grpc::Status status =
        client_->states().Search(TestClient::Context().get(), For("ferry"), &found);
    if (status.ok() && found.hits_size() == 9) return;
    if (!status.ok()) ASSERT_EQ(ReasonOf(status), "INDEX_REBUILDING") << status.error_message();
    absl::SleepFor(absl::Milliseconds(100));
  }
  ADD_FAILURE() << "it was not built anew";
}

TEST_F(SearchTest, SearchesAndCommitsDoNotDisturbEachOther) {
  Tell("first", "Barge number 0");
  constexpr int kBarges = 20;
  std::thread telling([&] {
    for (int i = 1; i < kBarges; ++i) {
      Tell("barge/" + std::to_string(i), "Barge number " + std::to_string(i));
    }
  });
  size_t before = 1;
  for (int i = 0; i < 10; ++i) {
    v1::SearchRequest request = For("barge", 4);
    request.set_limit(100);
    const size_t found = Names(request).size();
    EXPECT_GE(found, before);
    before = found;
  }
  telling.join();
  v1::SearchRequest request = For("barge");
  request.set_limit(100);
  EXPECT_EQ(Names(request).size(), size_t{kBarges});
}

TEST_F(SearchTest, AnIndexThatIsBehindCatchesUp) {
  Tell("old", "An old anchor.");
  const std::string index = dir_.path() + "/search", copy = dir_.path() + "/copy";
  Stop();
  std::filesystem::copy(index, copy);
  Start(RecallModel());
  Tell("new", "A new anchor.");
  Stop();
  std::filesystem::remove_all(index);
  std::filesystem::rename(copy, index);
  Start(RecallModel());
  EXPECT_EQ(Names(For("anchor")).size(), 2u);
}

TEST_F(SearchTest, AnEntryWhoseStateIsGoneIsNamedByVerifyAndGoesWithARepair) {
  Tell("kept", "The ferry leaves at noon.");
  EXPECT_EQ(RunCli(*server_, {"admin", "verify"}).code, 0);
  Stop();
  IndexedState gone;
  gone.record.tenant = "default";
  gone.record.id = "st-" + std::string(40, '7');
  gone.record.etag = 1;
  gone.text = "The ferry that was";
  {
    auto index = SearchIndex::Open(dir_.path() + "/search");
    ASSERT_TRUE(index.ok() && (*index)->Apply({gone}, {}, (*index)->watermark()).ok());
  }
  Start(RecallModel());
  EXPECT_EQ(Names(For("ferry")), List{"kept"});
  const CliRun found = RunCli(*server_, {"admin", "verify"});
  EXPECT_EQ(found.code, 1);
  EXPECT_THAT(found.out, testing::HasSubstr("DAMAGED index " + gone.record.id));
  EXPECT_EQ(RunCli(*server_, {"admin", "verify", "--repair"}).code, 0);
  const CliRun after = RunCli(*server_, {"admin", "verify"});
  EXPECT_EQ(after.code, 0) << after.out;
  EXPECT_EQ(Names(For("ferry")), List{"kept"});
}

TEST_F(SearchTest, StatesLikeAStateAreFound) {
  Tell("a", "Recipe: rye bread with caraway seeds.");
  Tell("b", "Recipe: wheat bread with caraway and salt.");
  Tell("c", "Minutes of the budget meeting.");
  v1::SearchRequest request;
  request.set_like_id("a");
  const v1::SearchResponse found = Search(request);
  ASSERT_GE(found.hits_size(), 1);
  for (const v1::SearchHit& hit : found.hits()) EXPECT_NE(hit.ref(), "a") << "itself";
  EXPECT_EQ(Names(request), List{"b"});
}

TEST_F(SearchTest, TheModelItselfSaysWhoKnows) {
  const std::vector<std::pair<std::string, std::string>> told = {
      {"code", "My locker code is 4711."},   {"color", "My favorite color is green."},
      {"name", "My name is Ada."},           {"sister", "My sister works as a nurse."},
      {"city", "I live in Oslo."},           {"dog", "My dog is called Rex."},
      {"locker", "My locker is in Athens."}, {"codes", "I write code, and more code."}};
  for (const auto& [id, text] : told) {
    client_->MustCreate(id);
    ASSERT_TRUE(client_->Say(id, text).has_done);
    Commit(id);
  }
  const v1::SearchResponse found = Search(For("What is my locker code?", 0));
  ASSERT_EQ(found.hits_size(), 8);
  EXPECT_EQ(found.hits(0).ref(), "code");
  for (const v1::SearchHit& hit : found.hits()) {
    EXPECT_TRUE(hit.reranked()) << hit.ref();
    EXPECT_GE(hit.entropy(), 0);
    EXPECT_GE(hit.answer_gain(), -1e-6);
    EXPECT_GT(hit.embedding_rank(), 0);
    EXPECT_LE(hit.score(), found.hits(0).score());
  }
  EXPECT_GT(found.hits(0).pmi(), found.hits(7).pmi());
  EXPECT_GT(found.usage().tokens_read(), 0);
  EXPECT_GT(found.usage().state_bytes_loaded(), 0);
  const v1::SearchResponse two = Search(For("What is my locker code?", 2));
  EXPECT_TRUE(two.hits(1).reranked());
  EXPECT_FALSE(two.hits(2).reranked()) << "those that were not judged come after";
  v1::SearchRequest embedding = For("What is my locker code?");
  embedding.set_method(v1::SEARCH_METHOD_EMBEDDING);
  const v1::SearchResponse nearest = Search(embedding);
  ASSERT_EQ(nearest.hits_size(), 8);
  EXPECT_EQ(nearest.hits(0).embedding_rank(), 1);
  EXPECT_EQ(nearest.hits(0).lexical_rank(), 0);
}

// The small model is sure of an answer after each of these, and only one was told it.
TEST_F(SearchTest, AnAnswerThatWasNotReadDoesNotWin) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> told = {
      {"right", {"Carlos lives in Lisbon.", "The location of Project Zema: Berlin."}},
      {"made-up", {"Remember that Carlos's room number is 28.", "Henry resides in Berlin."}},
      {"another", {"Mona's favorite city is Boston.", "Carlos is into sailing."}}};
  for (const auto& [id, texts] : told) {
    client_->MustCreate(id);
    for (const std::string& text : texts) ASSERT_TRUE(client_->Say(id, text).has_done);
    Commit(id);
  }
  const v1::SearchResponse found = Search(For("Which city is the home of Carlos in?", 0));
  ASSERT_EQ(found.hits_size(), 3);
  EXPECT_EQ(found.hits(0).ref(), "right");
  const v1::SearchHit *right = &found.hits(0), *made_up = nullptr;
  for (const v1::SearchHit& hit : found.hits()) {
    if (hit.ref() == "made-up") made_up = &hit;
  }
  ASSERT_NE(made_up, nullptr);
  EXPECT_GT(made_up->answer_gain(), 0.5 * right->answer_gain()) << "it is as sure of its answer";
  EXPECT_LT(made_up->score(), 0.75 * right->score()) << "but that was not read";
  for (const v1::SearchHit& hit : found.hits()) {
    EXPECT_LE(hit.score(), hit.pmi() + hit.answer_gain() + 1e-9) << hit.ref();
  }
  EXPECT_GT(found.usage().tokens_generated(), 0);
}

TEST_F(SearchTest, JudgingNeedsOneFreeSlotOnly) {
  Stop();
  ServerConfig config = TestConfig(RecallModel(), dir_.path());
  config.slots = 2;
  auto server = Server::Start(config);
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  client_ = std::make_unique<TestClient>(server_->address());
  for (int i = 0; i < 5; ++i) {
    Tell("n/" + std::to_string(i), "Note " + std::to_string(i) + " on owls.");
  }
  const v1::SearchResponse found = Search(For("owls", 5));
  ASSERT_EQ(found.hits_size(), 5);
  for (const v1::SearchHit& hit : found.hits()) EXPECT_TRUE(hit.reranked()) << hit.ref();
}

TEST_F(SearchTest, ASearchStopsAtItsDeadline) {
  Tell("a", "An owl.");
  v1::SearchResponse response;
  const grpc::Status late =
      client_->states().Search(TestClient::Context(0).get(), For("owl", 0), &response);
  EXPECT_EQ(late.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(Names(For("owl", 0)), List{"a"}) << "and the next one works";
}

class SearchOfModelTest : public SearchTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override { Start(GoldenModel(GetParam())); }
};

// The sum behind an embedding goes on over restarts, forks and merges.
TEST_P(SearchOfModelTest, EmbeddingsDependOnWhatWasReadAlone) {
  const std::vector<int32_t> tokens = SomeTokens(300, 1);
  client_->MustCreate("whole");
  ASSERT_TRUE(client_->AppendTokens("whole", tokens).has_done);
  Commit("whole");
  client_->MustCreate("parts");
  ASSERT_TRUE(client_->AppendTokens("parts", {tokens.begin(), tokens.begin() + 77}).has_done);
  Start(GoldenModel(GetParam()));
  ASSERT_TRUE(client_->AppendTokens("parts", {tokens.begin() + 77, tokens.end()}).has_done);
  Commit("parts");
  for (int seed = 2; seed < 6; ++seed) {
    const std::string id = "other/" + std::to_string(seed);
    client_->MustCreate(id);
    ASSERT_TRUE(client_->AppendTokens(id, SomeTokens(200, seed)).has_done);
    Commit(id);
  }
  v1::MergeRequest merge;
  for (const char* id : {"other/2", "other/3"}) merge.add_inputs()->set_id(id);
  merge.set_ref("merged");
  v1::MergeResponse merged;
  ASSERT_TRUE(client_->states().Merge(TestClient::Context().get(), merge, &merged).ok());
  v1::SearchRequest request;
  request.set_like_id("whole");
  const v1::SearchResponse found = Search(request);
  ASSERT_EQ(found.hits_size(), 6);
  EXPECT_EQ(found.hits(0).ref(), "parts");
  EXPECT_NEAR(found.hits(0).embedding_cosine(), 1, 1e-3);
  request.set_like_id("merged");
  const v1::SearchResponse inputs = Search(request);
  ASSERT_GE(inputs.hits_size(), 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(inputs.hits(i).ref() == "other/2" || inputs.hits(i).ref() == "other/3")
        << inputs.hits(i).ref();
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SearchOfModelTest,
                         testing::Values("mamba", "mamba2", "granitemoehybrid_dense"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(SearchTest, BadSearchesAreNamed) {
  Tell("a", "one");
  const auto expect = [&](const v1::SearchRequest& request, StatusCode code,
                          const std::string& reason, const std::string& part) {
    v1::SearchResponse response;
    const grpc::Status status =
        client_->states().Search(TestClient::Context().get(), request, &response);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_EQ(ReasonOf(status), reason);
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  };
  v1::SearchRequest request;
  expect(request, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "query");
  expect(For("  "), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "text");
  expect(For(std::string(20000, 'x')), StatusCode::INVALID_ARGUMENT, "LIMIT_EXCEEDED", "text");
  expect(For("x", 65), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "rerank");
  expect(For("x", -2), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "rerank");
  request = For("x");
  request.set_limit(101);
  expect(request, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "limit");
  request = For("x");
  request.set_method(static_cast<v1::SearchMethod>(77));
  expect(request, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "method");
  request = For("x");
  request.set_descendant_of("absent");
  expect(request, StatusCode::NOT_FOUND, "REF_NOT_FOUND", "absent");
  request.set_descendant_of("Not A Name");
  expect(request, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "descendant_of");
  request = v1::SearchRequest();
  request.set_like_id("absent");
  expect(request, StatusCode::NOT_FOUND, "REF_NOT_FOUND", "absent");
  request.set_like_id("a");
  request.set_rerank(4);
  expect(request, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "rerank");
  Start(GoldenModel("mamba2"));
  expect(For("x"), StatusCode::FAILED_PRECONDITION, "NO_TOKENIZER", "tokenizer");
}

}  // namespace
}  // namespace anabranch
