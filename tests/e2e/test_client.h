// A blocking client for tests: raw stubs, one method per call, statuses kept.
#pragma once

#include <google/protobuf/util/message_differencer.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "anabranch/v1/admin.grpc.pb.h"
#include "anabranch/v1/sessions.grpc.pb.h"
#include "anabranch/v1/states.grpc.pb.h"

namespace anabranch {

// What a stream gave: every message, then how it ended.
template <typename Response, typename DoneMessage>
struct StreamResult {
  std::vector<Response> events;
  DoneMessage done;
  bool has_done = false;
  grpc::Status status;
};
using AppendResult = StreamResult<v1::AppendResponse, v1::AppendDone>;
using GenerateResult = StreamResult<v1::GenerateResponse, v1::GenerateDone>;

// The reason in a status's details; "" if it has none.
std::string ReasonOf(const grpc::Status& status);

v1::Content TokenContent(const std::vector<int32_t>& tokens);
v1::Content TextContent(const std::string& text);

// A token sequence that `seed` decides, of ids in [0, vocab).
std::vector<int32_t> SomeTokens(int count, int seed, int32_t vocab = 257);

class TestClient {
 public:
  explicit TestClient(const std::string& address);

  grpc::Status Create(const v1::CreateSessionRequest& request, v1::CreateSessionResponse* response);
  // Creates an empty session and expects that to work.
  void MustCreate(const std::string& id);
  AppendResult Append(const std::vector<v1::AppendRequest>& requests,
                      const std::function<void(const v1::AppendResponse&)>& on_event = nullptr);
  AppendResult AppendTokens(const std::string& id, const std::vector<int32_t>& tokens,
                            bool no_checkpoint = false, const std::string& request_id = "");
  // Appends the text as a turn of the user's.
  AppendResult Say(const std::string& id, const std::string& text);
  // The same, and the assistant's reply to it; expects both to work.
  std::string Ask(const std::string& id, const std::string& text);
  // `on_event` returning false cancels the call.
  GenerateResult Generate(
      const v1::GenerateRequest& request,
      const std::function<bool(const v1::GenerateResponse&)>& on_event = nullptr,
      int deadline_ms = 60000);
  grpc::Status Score(const std::string& id, const std::vector<int32_t>& tokens,
                     v1::ScoreResponse* response);
  // The log-probabilities of a fixed continuation: equal only if the states are.
  std::vector<float> Fingerprint(const std::string& id, v1::Usage* usage = nullptr);
  grpc::Status Commit(const v1::CommitRequest& request, v1::CommitResponse* response);
  grpc::Status Rewind(const std::string& id, int64_t token_count, bool dry_run,
                      v1::RewindResponse* response);
  grpc::Status GetSession(const std::string& id, v1::Session* session);
  std::vector<int32_t> SessionTokens(const std::string& id);
  v1::ServerStatus Status();

  v1::Sessions::Stub& sessions() { return *sessions_; }
  v1::States::Stub& states() { return *states_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  // A context with a deadline, so that no test hangs.
  static std::unique_ptr<grpc::ClientContext> Context(int deadline_ms = 60000);

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Sessions::Stub> sessions_;
  std::unique_ptr<v1::States::Stub> states_;
  std::unique_ptr<v1::Admin::Stub> admin_;
};

}  // namespace anabranch
