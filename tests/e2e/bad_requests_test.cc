// Every bad request gets its code and its reason, and the server goes on.
#include <gtest/gtest.h>

#include "tests/e2e/test_client.h"
#include "tests/e2e/test_server.h"

namespace anabranch {
namespace {

using grpc::StatusCode;

class BadRequestsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new TempDir;
    ServerConfig config = TestConfig(GoldenModel("mamba2"), dir_->path());
    config.limits.max_context_tokens = 100;
    config.limits.max_append_tokens = 60;
    config.limits.max_generate_tokens = 50;
    auto server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = server->release();
    client_ = new TestClient(server_->address());
    client_->MustCreate("full");
    ASSERT_TRUE(client_->AppendTokens("full", SomeTokens(50, 1)).has_done);
    client_->MustCreate("empty");
  }
  static void TearDownTestSuite() {
    delete client_;
    delete server_;
    delete dir_;
  }
  // The server still does its work after each case.
  void TearDown() override {
    v1::ScoreResponse response;
    EXPECT_TRUE(client_->Score("full", {1, 2, 3}, &response).ok());
    v1::Session session;
    ASSERT_TRUE(client_->GetSession("full", &session).ok());
    EXPECT_EQ(session.token_count(), 50);
  }

  static void Expect(const grpc::Status& status, StatusCode code, const std::string& reason,
                     const std::string& part = "") {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_EQ(ReasonOf(status), reason) << status.error_message();
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  }
  static grpc::Status Create(const v1::CreateSessionRequest& request) {
    v1::CreateSessionResponse response;
    return client_->Create(request, &response);
  }
  static grpc::Status AppendStatus(const v1::AppendRequest& request) {
    return client_->Append({request}).status;
  }
  static v1::GenerateRequest GenerateRequest() {
    v1::GenerateRequest request;
    request.set_session_id("full");
    request.set_max_tokens(1);
    return request;
  }
  static grpc::Status GenerateStatus(const v1::GenerateRequest& request) {
    return client_->Generate(request).status;
  }

  static TempDir* dir_;
  static Server* server_;
  static TestClient* client_;
};
TempDir* BadRequestsTest::dir_ = nullptr;
Server* BadRequestsTest::server_ = nullptr;
TestClient* BadRequestsTest::client_ = nullptr;

TEST_F(BadRequestsTest, NamesAreChecked) {
  for (const char* bad : {"Upper", "a//b", "/a", "a/", "-a", "a b", "ü", ".."}) {
    v1::CreateSessionRequest request;
    request.set_session_id(bad);
    Expect(Create(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "session_id");
    v1::CreateSessionRequest ref;
    ref.set_ref(bad);
    Expect(Create(ref), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "ref");
  }
  v1::CreateSessionRequest longest;
  longest.set_session_id(std::string(64, 'a'));
  Expect(Create(longest), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "session_id");
  v1::CreateSessionRequest request_id;
  request_id.set_request_id(std::string(65, 'x'));
  Expect(Create(request_id), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "request_id");
}

TEST_F(BadRequestsTest, TakenAndUnknownNames) {
  v1::CreateSessionRequest taken;
  taken.set_session_id("full");
  Expect(Create(taken), StatusCode::ALREADY_EXISTS, "SESSION_EXISTS", "full");
  v1::CreateSessionRequest from_ref;
  from_ref.set_ref_name("no/such");
  Expect(Create(from_ref), StatusCode::NOT_FOUND, "REF_NOT_FOUND", "no/such");
  v1::CreateSessionRequest from_state;
  from_state.set_state_id("st-0123456789012345678901234567890123456789");
  Expect(Create(from_state), StatusCode::NOT_FOUND, "STATE_NOT_FOUND");
  from_state.set_state_id("nonsense");
  Expect(Create(from_state), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "state_id");
  Expect(client_->AppendTokens("nobody", {1}).status, StatusCode::NOT_FOUND, "SESSION_NOT_FOUND",
         "nobody");
  v1::Session session;
  Expect(client_->GetSession("nobody", &session), StatusCode::NOT_FOUND, "SESSION_NOT_FOUND");
}

TEST_F(BadRequestsTest, AppendContentIsChecked) {
  v1::AppendRequest request;
  Expect(client_->Append({}).status, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "session_id");
  request.set_session_id("full");
  *request.mutable_content() = TokenContent({1, 257});
  Expect(AppendStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "257");
  *request.mutable_content() = TokenContent({-1});
  Expect(AppendStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "-1");
  *request.mutable_content() = v1::Content();
  Expect(AppendStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "content");
  *request.mutable_content() = TextContent("hello");
  Expect(AppendStatus(request), StatusCode::FAILED_PRECONDITION, "NO_TOKENIZER");
  request.mutable_content()->mutable_messages()->add_messages()->set_role("user");
  Expect(AppendStatus(request), StatusCode::FAILED_PRECONDITION, "NO_CHAT_FORMAT");
  *request.mutable_content() = TokenContent(SomeTokens(61, 1));
  Expect(AppendStatus(request), StatusCode::INVALID_ARGUMENT, "LIMIT_EXCEEDED", "60");
  *request.mutable_content() = TokenContent(SomeTokens(51, 1));
  Expect(AppendStatus(request), StatusCode::INVALID_ARGUMENT, "LIMIT_EXCEEDED", "100");
  request.set_expected_token_count(49);
  Expect(AppendStatus(request), StatusCode::ABORTED, "TOKEN_COUNT_MISMATCH", "50");
  request.set_expected_token_count(-1);
  Expect(AppendStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD");
}

TEST_F(BadRequestsTest, LaterMessagesMayNotNameAnotherSession) {
  v1::AppendRequest first, second;
  first.set_session_id("empty");
  second.set_session_id("full");
  *second.mutable_content() = TokenContent({1});
  Expect(client_->Append({first, second}).status, StatusCode::INVALID_ARGUMENT, "INVALID_FIELD",
         "session_id");
}

TEST_F(BadRequestsTest, HistoriesAreChecked) {
  v1::CreateSessionRequest request;
  *request.mutable_history() = TokenContent({});
  Expect(Create(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "history");
  *request.mutable_history() = TokenContent(SomeTokens(61, 3));
  Expect(Create(request), StatusCode::INVALID_ARGUMENT, "LIMIT_EXCEEDED", "history");
  *request.mutable_history() = TokenContent({300});
  Expect(Create(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "history");
}

TEST_F(BadRequestsTest, GenerateParametersAreChecked) {
  v1::GenerateRequest request = GenerateRequest();
  request.set_max_tokens(51);
  Expect(GenerateStatus(request), StatusCode::INVALID_ARGUMENT, "LIMIT_EXCEEDED", "max_tokens");
  request.set_max_tokens(-1);
  Expect(GenerateStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "max_tokens");
  request = GenerateRequest();
  request.mutable_sampling()->set_temperature(11);
  Expect(GenerateStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "temperature");
  request.mutable_sampling()->set_temperature(std::numeric_limits<float>::quiet_NaN());
  Expect(GenerateStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "temperature");
  request = GenerateRequest();
  request.mutable_sampling()->set_top_p(2);
  Expect(GenerateStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "top_p");
  request = GenerateRequest();
  request.set_logprobs(true);
  request.set_top_logprobs(21);
  Expect(GenerateStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "top_logprobs");
  request = GenerateRequest();
  request.add_stop("x");
  Expect(GenerateStatus(request), StatusCode::FAILED_PRECONDITION, "NO_TOKENIZER");
  request.set_stop(0, "");
  Expect(GenerateStatus(request), StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "stop");
  request = GenerateRequest();
  for (int i = 0; i < 17; ++i) request.add_stop("x");
  Expect(GenerateStatus(request), StatusCode::INVALID_ARGUMENT, "LIMIT_EXCEEDED", "stop");
  request = GenerateRequest();
  request.set_reply(true);
  Expect(GenerateStatus(request), StatusCode::FAILED_PRECONDITION, "NO_CHAT_FORMAT");
}

TEST_F(BadRequestsTest, AnEmptyContextCannotGenerateScoreOrCommit) {
  v1::GenerateRequest request = GenerateRequest();
  request.set_session_id("empty");
  Expect(GenerateStatus(request), StatusCode::FAILED_PRECONDITION, "EMPTY_CONTEXT");
  v1::ScoreResponse score;
  Expect(client_->Score("empty", {1}, &score), StatusCode::FAILED_PRECONDITION, "EMPTY_CONTEXT");
  v1::CommitRequest commit;
  commit.set_session_id("empty");
  v1::CommitResponse committed;
  Expect(client_->Commit(commit, &committed), StatusCode::FAILED_PRECONDITION, "EMPTY_CONTEXT");
}

TEST_F(BadRequestsTest, LibraryCallsAreChecked) {
  v1::State state;
  v1::GetStateRequest get;
  get.set_id("no/such");
  Expect(client_->states().GetState(TestClient::Context().get(), get, &state),
         StatusCode::NOT_FOUND, "REF_NOT_FOUND");
  v1::UpdateStateRequest update;
  update.set_id("full");
  Expect(client_->states().UpdateState(TestClient::Context().get(), update, &state),
         StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "id");
  v1::ListStatesRequest list;
  v1::ListStatesResponse listed;
  list.set_page_size(1001);
  Expect(client_->states().ListStates(TestClient::Context().get(), list, &listed),
         StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "page_size");
  list.set_page_size(1);
  list.set_page_token("forged");
  EXPECT_EQ(client_->states().ListStates(TestClient::Context().get(), list, &listed).error_code(),
            StatusCode::INVALID_ARGUMENT);
  v1::GetTokensRequest tokens;
  v1::GetTokensResponse response;
  Expect(client_->states().GetTokens(TestClient::Context().get(), tokens, &response),
         StatusCode::INVALID_ARGUMENT, "INVALID_FIELD", "source");
  tokens.set_session_id("full");
  tokens.set_limit(500001);
  Expect(client_->states().GetTokens(TestClient::Context().get(), tokens, &response),
         StatusCode::INVALID_ARGUMENT, "LIMIT_EXCEEDED", "limit");
  v1::SetRefRequest set;
  v1::Ref ref;
  set.set_name("new");
  set.set_state_id("st-0123456789012345678901234567890123456789");
  Expect(client_->states().SetRef(TestClient::Context().get(), set, &ref), StatusCode::NOT_FOUND,
         "STATE_NOT_FOUND");
}

TEST_F(BadRequestsTest, AStateInUseIsNotDeleted) {
  v1::Session session;
  ASSERT_TRUE(client_->GetSession("full", &session).ok());
  v1::DeleteStateRequest request;
  request.set_id(session.head_state_id());
  v1::DeleteStateResponse response;
  Expect(client_->states().DeleteState(TestClient::Context().get(), request, &response),
         StatusCode::FAILED_PRECONDITION, "STATE_IN_USE", "full");
}

TEST_F(BadRequestsTest, OversizedMessagesAreRefusedBeforeTheyAreParsed) {
  v1::AppendRequest request;
  request.set_session_id("full");
  request.mutable_content()->set_text(std::string((4 << 20) + 1, 'x'));
  EXPECT_EQ(AppendStatus(request).error_code(), StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(BadRequestsTest, OffsetsBeyondTheEndGiveNothing) {
  v1::GetTokensRequest tokens;
  tokens.set_session_id("full");
  tokens.set_offset(std::numeric_limits<int64_t>::max());
  v1::GetTokensResponse response;
  ASSERT_TRUE(client_->states().GetTokens(TestClient::Context().get(), tokens, &response).ok());
  EXPECT_EQ(response.ids_size(), 0);
  EXPECT_EQ(response.total(), 50);
}

}  // namespace
}  // namespace anabranch
