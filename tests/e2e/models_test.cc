// Several models in one server: each session is of one, library, calls and clients are shared.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "service/model_spec.h"
#include "tests/e2e/cli_run.h"
#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

constexpr int kTokens = 60;

class ModelsTest : public testing::Test {
 protected:
  // Serves the models in this order, over the same library each time.
  void Serve(const std::vector<std::string>& models) {
    client_.reset();
    server_.reset();
    ServerConfig config = TestConfig("", dir_.path());
    config.models.clear();
    for (const std::string& model : models) config.models.push_back({.directory = model});
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
  }
  grpc::Status Create(const std::string& id, const std::string& model,
                      const std::string& from_state = "") {
    v1::CreateSessionRequest request;
    request.set_session_id(id);
    request.set_model(model);
    if (!from_state.empty()) request.set_state_id(from_state);
    v1::CreateSessionResponse response;
    return client_->Create(request, &response);
  }
  // A session of the model that has read `seed`'s tokens; the id of the state at its end.
  std::string Read(const std::string& id, const std::string& model, int seed) {
    const grpc::Status created = Create(id, model);
    EXPECT_TRUE(created.ok()) << created.error_message();
    EXPECT_TRUE(client_->AppendTokens(id, SomeTokens(kTokens, seed)).has_done);
    return Session(id).head_state_id();
  }
  v1::Session Session(const std::string& id) {
    v1::Session session;
    EXPECT_TRUE(client_->GetSession(id, &session).ok()) << id;
    return session;
  }
  grpc::Status Merge(const std::vector<std::string>& states, v1::MergeResponse* response) {
    v1::MergeRequest request;
    for (const std::string& state : states) request.add_inputs()->set_id(state);
    return client_->states().Merge(TestClient::Context().get(), request, response);
  }
  // Name and fingerprint of each model that is served.
  std::map<std::string, std::string> Served() {
    std::map<std::string, std::string> served;
    const v1::ServerStatus status = client_->Status();
    for (const v1::ModelStatus& each : status.models()) {
      served[each.model().name()] = each.model().fingerprint();
    }
    return served;
  }

  const std::string mamba2_ = GoldenModel("mamba2"), bamba_ = GoldenModel("bamba");
  TempDir dir_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<TestClient> client_;
};

TEST_F(ModelsTest, SessionsAnswerAsTheModelThatTheyAskForAnswersAlone) {
  std::map<std::string, std::vector<float>> alone;
  for (const std::string name : {"mamba2", "bamba"}) {
    Serve({GoldenModel(name)});
    Read("alone/" + name, "", 1);
    alone[name] = client_->Fingerprint("alone/" + name);
  }
  ASSERT_NE(alone["mamba2"], alone["bamba"]);

  Serve({mamba2_, bamba_});
  const auto served = Served();
  ASSERT_THAT(served, SizeIs(2));
  for (const auto& [name, fingerprint] : served) {
    Read("by-name/" + name, name, 1);
    Read("by-fingerprint/" + name, fingerprint, 1);
    EXPECT_EQ(Session("by-name/" + name).model_fingerprint(), fingerprint);
    EXPECT_EQ(client_->Fingerprint("by-name/" + name), alone[name]);
    EXPECT_EQ(client_->Fingerprint("by-fingerprint/" + name), alone[name]);
    // What each left in the library when it was served alone, it goes on from.
    EXPECT_EQ(client_->Fingerprint("alone/" + name), alone[name]);
  }
  Read("by-default", "", 1);
  EXPECT_EQ(client_->Fingerprint("by-default"), alone["mamba2"]);
}

TEST_F(ModelsTest, SessionsKeepTheirModelWhenTheServerServesInAnotherOrder) {
  Serve({mamba2_, bamba_});
  Read("a", "mamba2", 1);
  Read("b", "bamba", 2);
  const auto a = client_->Fingerprint("a"), b = client_->Fingerprint("b");
  Serve({bamba_, mamba2_});
  EXPECT_EQ(client_->Fingerprint("a"), a);
  EXPECT_EQ(client_->Fingerprint("b"), b);
  v1::ListSessionsResponse listed;
  ASSERT_TRUE(client_->sessions().ListSessions(TestClient::Context().get(), {}, &listed).ok());
  ASSERT_THAT(listed.sessions(), SizeIs(2));
  for (const v1::Session& session : listed.sessions()) EXPECT_TRUE(session.loaded());
}

TEST_F(ModelsTest, WhatGoesOnFromAStateRunsOnTheStatesModel) {
  Serve({mamba2_, bamba_});
  const std::string state = Read("b", "bamba", 2);
  const auto expected = client_->Fingerprint("b");
  ASSERT_TRUE(Create("from-state", "", state).ok());
  EXPECT_EQ(client_->Fingerprint("from-state"), expected);

  v1::ForkRequest fork;
  fork.set_state_id(state);
  fork.set_count(2);
  fork.set_prefix("fork");
  v1::ForkResponse forks;
  ASSERT_TRUE(client_->sessions().Fork(TestClient::Context().get(), fork, &forks).ok());
  for (const v1::Session& each : forks.sessions()) {
    EXPECT_EQ(client_->Fingerprint(each.id()), expected);
  }

  v1::SpanRequest forget;
  forget.set_id(state);
  forget.mutable_span()->set_begin(10);
  forget.mutable_span()->set_end(20);
  v1::ComputedState forgot;
  const auto status = client_->states().Forget(TestClient::Context().get(), forget, &forgot);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(forgot.state().model_fingerprint(), Served()["bamba"]);
}

TEST_F(ModelsTest, StatesAreListedByTheirModelsNameOrFingerprint) {
  Serve({mamba2_, bamba_});
  const std::string fingerprint = Served()["bamba"];
  Read("a", "mamba2", 1);
  Read("b", "bamba", 2);
  const auto list = [&](const std::string& model, v1::ListStatesResponse* listed) {
    v1::ListStatesRequest request;
    request.set_model_fingerprint(model);
    return client_->states().ListStates(TestClient::Context().get(), request, listed);
  };
  for (const std::string& model : {std::string("bamba"), fingerprint}) {
    v1::ListStatesResponse listed;
    ASSERT_TRUE(list(model, &listed).ok());
    ASSERT_FALSE(listed.states().empty());
    for (const v1::State& state : listed.states()) {
      EXPECT_EQ(state.model_fingerprint(), fingerprint);
    }
    const CliRun shown = RunCli(*server_, {"state", "ls", "--model", model});
    EXPECT_EQ(shown.code, 0);
    EXPECT_THAT(shown.out, HasSubstr(Session("b").head_state_id()));
    EXPECT_THAT(shown.out, testing::Not(HasSubstr(Session("a").head_state_id())));
  }
  v1::ListStatesResponse none;
  const grpc::Status unknown = list("bambi", &none);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(unknown.error_message(), HasSubstr("model_fingerprint"));
  EXPECT_THAT(unknown.error_message(), HasSubstr("mamba2, bamba"));
  // What a model left that is served no more is found by its fingerprint alone.
  Serve({mamba2_});
  v1::ListStatesResponse left;
  ASSERT_TRUE(list(fingerprint, &left).ok());
  EXPECT_FALSE(left.states().empty());
  EXPECT_EQ(list("bamba", &none).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ModelsTest, StatesOfOneModelMergeAndThoseOfTwoDoNot) {
  Serve({mamba2_, bamba_});
  const std::string a = Read("a", "mamba2", 1);
  const std::string b1 = Read("b1", "bamba", 2), b2 = Read("b2", "bamba", 3);
  v1::MergeResponse merged;
  const grpc::Status of_one = Merge({b1, b2}, &merged);
  ASSERT_TRUE(of_one.ok()) << of_one.error_message();
  EXPECT_EQ(merged.state().model_fingerprint(), Served()["bamba"]);
  for (const auto& pair : {std::vector<std::string>{a, b1}, {b1, a}}) {
    const grpc::Status of_two = Merge(pair, &merged);
    EXPECT_EQ(of_two.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(ReasonOf(of_two), "MODEL_MISMATCH");
  }
}

TEST_F(ModelsTest, ARequestForAModelThatCannotBeSaysWhy) {
  Serve({mamba2_, bamba_});
  const grpc::Status unknown = Create("s", "mamba3");
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(unknown.error_message(),
            "model: 'mamba3' is no model that is served, which are: mamba2, bamba");
  const std::string state = Read("b", "bamba", 2);
  const grpc::Status other = Create("s", "mamba2", state);
  EXPECT_EQ(other.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(other.error_message(), HasSubstr("is of model " + Served()["bamba"]));
  EXPECT_TRUE(Create("s", "bamba", state).ok());
}

TEST_F(ModelsTest, ASessionWhoseModelIsNotServedIsKeptForWhenItIs) {
  Serve({mamba2_, bamba_});
  Read("b", "bamba", 2);
  const auto expected = client_->Fingerprint("b");
  Serve({mamba2_});
  EXPECT_EQ(Session("b").token_count(), kTokens);
  const AppendResult refused = client_->AppendTokens("b", SomeTokens(3, 1));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(refused.status), "MODEL_MISMATCH");
  Serve({bamba_});
  EXPECT_EQ(client_->Fingerprint("b"), expected);
}

TEST_F(ModelsTest, ABundleIsImportedForTheModelThatItIsOf) {
  Serve({mamba2_, bamba_});
  const std::string state = Read("b", "bamba", 2);
  const auto expected = client_->Fingerprint("b");
  const std::string file = dir_.path() + "/b.bundle";
  ASSERT_EQ(RunCli(*server_, {"export", state, "-o", file}).code, 0);
  const TempDir elsewhere;
  const auto import_at = [&](const std::vector<ModelSpec>& models) {
    ServerConfig config = TestConfig("", elsewhere.path());
    config.models = models;
    auto server = Server::Start(config);
    EXPECT_TRUE(server.ok()) << server.status();
    const CliRun run = RunCli(**server, {"import", file, "--ref", "b"});
    server_ = *std::move(server);
    client_ = std::make_unique<TestClient>(server_->address());
    return run;
  };
  const CliRun refused = import_at({{.directory = mamba2_}});
  EXPECT_NE(refused.code, 0);
  EXPECT_THAT(refused.err, HasSubstr("which this server does not serve"));
  server_.reset();
  const CliRun taken = import_at({{.directory = mamba2_}, {.directory = bamba_}});
  EXPECT_EQ(taken.code, 0) << taken.err;
  ASSERT_TRUE(Create("moved", "", state).ok());
  EXPECT_EQ(client_->Fingerprint("moved"), expected);
}

TEST_F(ModelsTest, StatusAndCommandLineNameEachModel) {
  Serve({mamba2_, bamba_});
  Read("a", "mamba2", 1);
  Read("b", "bamba", 2);
  const v1::ServerStatus status = client_->Status();
  EXPECT_EQ(status.model().name(), "mamba2");
  EXPECT_EQ(status.engine().slots_total(), 16);
  ASSERT_THAT(status.models(), SizeIs(2));
  for (const v1::ModelStatus& each : status.models()) EXPECT_EQ(each.engine().slots_used(), 1);
  const CliRun shown = RunCli(*server_, {"status"});
  EXPECT_THAT(shown.out, HasSubstr("mamba2 ("));
  EXPECT_THAT(shown.out, HasSubstr("bamba ("));
  EXPECT_EQ(RunCli(*server_, {"session", "create", "c", "--model", "bamba"}).code, 0);
  EXPECT_EQ(Session("c").model_fingerprint(), Served()["bamba"]);
}

TEST(ModelsProcessTest, EachModelsSessionsOutliveSigkill) {
  TempDir dir;
  const std::vector<std::string> both = {"--model", GoldenModel("bamba") + ",name=second,slots=3"};
  std::map<std::string, std::vector<float>> before;
  {
    ServerProcess server(GoldenModel("mamba2"), dir.path(), both);
    ASSERT_FALSE(server.address().empty());
    EXPECT_THAT(server.ready_line(), HasSubstr("serving mamba2, second on "));
    TestClient client(server.address());
    EXPECT_EQ(client.Status().models(1).engine().slots_total(), 3);
    for (const std::string model : {"mamba2", "second"}) {
      v1::CreateSessionRequest request;
      request.set_session_id(model);
      request.set_model(model);
      v1::CreateSessionResponse response;
      ASSERT_TRUE(client.Create(request, &response).ok());
      ASSERT_TRUE(client.AppendTokens(model, SomeTokens(kTokens, 5)).has_done);
      before[model] = client.Fingerprint(model);
    }
    server.Kill();
  }
  ServerProcess server(GoldenModel("mamba2"), dir.path(), both);
  TestClient client(server.address());
  for (const auto& [model, print] : before) EXPECT_EQ(client.Fingerprint(model), print) << model;
}

// Search asks the model of what it searches: the embedded one beside one without a tokenizer.
TEST_F(ModelsTest, SearchAsksTheModelThatItNames) {
  Serve({mamba2_, RecallModel()});
  ASSERT_TRUE(Create("boats", "recall").ok());
  ASSERT_TRUE(client_->Say("boats", "The boat was repainted in Lisbon.").has_done);
  v1::SearchRequest request;
  request.set_text("Where was the boat repainted?");
  v1::SearchResponse found;
  EXPECT_EQ(ReasonOf(client_->states().Search(TestClient::Context().get(), request, &found)),
            "NO_TOKENIZER");
  for (const std::string model : {std::string("recall"), Served()["recall"]}) {
    request.set_model_fingerprint(model);
    const auto status = client_->states().Search(TestClient::Context().get(), request, &found);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_THAT(found.hits(), SizeIs(1));
    EXPECT_EQ(found.hits(0).session_id(), "boats");
    EXPECT_TRUE(found.hits(0).reranked());
  }
}

TEST(ModelFlagTest, AFolderMayHaveCommasInItsName) {
  TempDir dir;
  const std::string folder = dir.path() + "/mamba, a copy,v2";
  ASSERT_TRUE(std::filesystem::create_directories(folder));
  const auto alone = ParseModelSpec(folder);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->directory, folder);
  EXPECT_EQ(NameOf(*alone), "mamba, a copy,v2");
  const auto spec = ParseModelSpec(folder + ",name=copy,slots=3");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->directory, folder);
  EXPECT_EQ(spec->name, "copy");
  EXPECT_EQ(spec->slots, 3);
  EXPECT_FALSE(ParseModelSpec(dir.path() + "/not there,v2").ok());
}

TEST(ModelFlagTest, SaysWhatIsWrongWithTheList) {
  TempDir dir;
  const auto refusal = [&dir](const std::vector<std::string>& models) {
    ServerConfig config = TestConfig("", dir.path());
    config.models.clear();
    for (const std::string& model : models) {
      const auto spec = ParseModelSpec(model);
      if (!spec.ok()) return std::string(spec.status().message());
      config.models.push_back(*spec);
    }
    return std::string(Server::Start(config).status().message());
  };
  const std::string model = GoldenModel("mamba2");
  EXPECT_EQ(refusal({}), "--model must name a folder");
  EXPECT_EQ(refusal({model, model + "/"}),
            "--model: two models are called mamba2: give one a ,name=OTHER");
  EXPECT_EQ(refusal({model, model + ",name=again"}),
            "--model: mamba2 and again are the same model");
  EXPECT_EQ(refusal({model + ",slots=many"}), "--model: 'slots=many' needs a whole number");
  EXPECT_EQ(refusal({model + ",slots=0"}), "--slots is 0, must be 1 to 65536");
  EXPECT_EQ(refusal({model + ",slots"}), "--model: 'slots' must be KEY=VALUE");
  EXPECT_EQ(
      refusal({model + ",threads=2"}),
      "--model: 'threads=2' has no key of name, device, dtype, state-dtype, slots and kv-pages");
  EXPECT_EQ(refusal({model + ",dtype=int4"}), "--dtype is 'int4', must be float32 or bfloat16");
  EXPECT_EQ(refusal({model + ",device=cuda:0+cuda:0"}), "--device has cuda:0 twice");
}

}  // namespace
}  // namespace anabranch
