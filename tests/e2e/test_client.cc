#include "tests/e2e/test_client.h"

#include <gtest/gtest.h>

#include <random>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace anabranch {

std::string ReasonOf(const grpc::Status& status) {
  google::rpc::Status details;
  google::rpc::ErrorInfo info;
  if (!details.ParseFromString(status.error_details()) || details.details().empty() ||
      !details.details(0).UnpackTo(&info) || info.domain() != "anabranch") {
    return "";
  }
  return info.reason();
}

v1::Content TokenContent(const std::vector<int32_t>& tokens) {
  v1::Content content;
  content.mutable_tokens()->mutable_ids()->Add(tokens.begin(), tokens.end());
  return content;
}

v1::Content TextContent(const std::string& text) {
  v1::Content content;
  content.set_text(text);
  return content;
}

std::vector<int32_t> SomeTokens(int count, int seed, int32_t vocab) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = random() % vocab;
  return tokens;
}

TestClient::TestClient(const std::string& address) {
  grpc::ChannelArguments arguments;
  // A server that was killed comes back under the same address: try again at once.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  channel_ = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  sessions_ = v1::Sessions::NewStub(channel_);
  states_ = v1::States::NewStub(channel_);
  admin_ = v1::Admin::NewStub(channel_);
}

std::unique_ptr<grpc::ClientContext> TestClient::Context(int deadline_ms) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(deadline_ms));
  return context;
}

grpc::Status TestClient::Create(const v1::CreateSessionRequest& request,
                                v1::CreateSessionResponse* response) {
  return sessions_->CreateSession(Context().get(), request, response);
}

void TestClient::MustCreate(const std::string& id) {
  v1::CreateSessionRequest request;
  request.set_session_id(id);
  v1::CreateSessionResponse response;
  const grpc::Status status = Create(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
}

AppendResult TestClient::Append(const std::vector<v1::AppendRequest>& requests,
                                const std::function<void(const v1::AppendResponse&)>& on_event) {
  AppendResult result;
  auto context = Context();
  auto stream = sessions_->Append(context.get());
  for (const v1::AppendRequest& request : requests) {
    if (!stream->Write(request)) break;
  }
  stream->WritesDone();
  v1::AppendResponse event;
  while (stream->Read(&event)) {
    if (on_event) on_event(event);
    if (event.has_done()) {
      result.done = event.done();
      result.has_done = true;
    }
    result.events.push_back(event);
  }
  result.status = stream->Finish();
  return result;
}

AppendResult TestClient::AppendTokens(const std::string& id, const std::vector<int32_t>& tokens,
                                      bool no_checkpoint, const std::string& request_id) {
  v1::AppendRequest request;
  request.set_session_id(id);
  request.set_no_checkpoint(no_checkpoint);
  request.set_request_id(request_id);
  *request.mutable_content() = TokenContent(tokens);
  return Append({request});
}

AppendResult TestClient::Say(const std::string& id, const std::string& text) {
  v1::AppendRequest request;
  request.set_session_id(id);
  v1::Message& message = *request.mutable_content()->mutable_messages()->add_messages();
  message.set_role("user");
  message.set_text(text);
  return Append({request});
}

std::string TestClient::Ask(const std::string& id, const std::string& text) {
  EXPECT_TRUE(Say(id, text).has_done) << text;
  v1::GenerateRequest reply;
  reply.set_session_id(id);
  reply.set_reply(true);
  const GenerateResult result = Generate(reply);
  EXPECT_TRUE(result.has_done) << result.status.error_message();
  return result.done.text();
}

GenerateResult TestClient::Generate(
    const v1::GenerateRequest& request,
    const std::function<bool(const v1::GenerateResponse&)>& on_event, int deadline_ms) {
  GenerateResult result;
  auto context = Context(deadline_ms);
  auto stream = sessions_->Generate(context.get(), request);
  v1::GenerateResponse event;
  while (stream->Read(&event)) {
    if (event.has_done()) {
      result.done = event.done();
      result.has_done = true;
    }
    result.events.push_back(event);
    if (on_event && !on_event(event)) context->TryCancel();
  }
  result.status = stream->Finish();
  return result;
}

grpc::Status TestClient::Score(const std::string& id, const std::vector<int32_t>& tokens,
                               v1::ScoreResponse* response) {
  v1::ScoreRequest request;
  request.set_session_id(id);
  request.set_per_token(true);
  *request.mutable_content() = TokenContent(tokens);
  return sessions_->Score(Context().get(), request, response);
}

std::vector<float> TestClient::Fingerprint(const std::string& id, v1::Usage* usage) {
  v1::ScoreResponse response;
  const grpc::Status status = Score(id, SomeTokens(8, 99), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  if (usage != nullptr) *usage = response.usage();
  std::vector<float> logprobs;
  for (const v1::TokenInfo& token : response.tokens()) logprobs.push_back(token.logprob());
  return logprobs;
}

grpc::Status TestClient::Rewind(const std::string& id, int64_t token_count, bool dry_run,
                                v1::RewindResponse* response) {
  v1::RewindRequest request;
  request.set_session_id(id);
  request.set_token_count(token_count);
  request.set_dry_run(dry_run);
  return sessions_->Rewind(Context().get(), request, response);
}

grpc::Status TestClient::Commit(const v1::CommitRequest& request, v1::CommitResponse* response) {
  return sessions_->Commit(Context().get(), request, response);
}

grpc::Status TestClient::GetSession(const std::string& id, v1::Session* session) {
  v1::GetSessionRequest request;
  request.set_session_id(id);
  return sessions_->GetSession(Context().get(), request, session);
}

std::vector<int32_t> TestClient::SessionTokens(const std::string& id) {
  v1::GetTokensRequest request;
  request.set_session_id(id);
  v1::GetTokensResponse response;
  const grpc::Status status = states_->GetTokens(Context().get(), request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return {response.ids().begin(), response.ids().end()};
}

v1::ServerStatus TestClient::Status() {
  v1::ServerStatus response;
  const grpc::Status status = admin_->GetStatus(Context().get(), v1::GetStatusRequest(), &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response;
}

}  // namespace anabranch
