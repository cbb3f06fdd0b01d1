// An in-process server that implements the three services on strings: one token is one byte of
// text. Faults are injected through the public fields of Faults.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "anabranch/v1/admin.grpc.pb.h"
#include "anabranch/v1/sessions.grpc.pb.h"
#include "anabranch/v1/states.grpc.pb.h"

namespace anabranch::testing {

grpc::Status Error(grpc::StatusCode code, const std::string& message, const std::string& reason);

struct Faults {
  // The next calls answer UNAVAILABLE, before (lost request) or after (lost answer) they are
  // applied.
  std::atomic<int> lose_requests{0};
  std::atomic<int> lose_answers{0};
  // Generate sends deltas until it is cancelled.
  std::atomic<bool> endless{false};
  // Generate breaks off with UNAVAILABLE after this many deltas; 0: never.
  std::atomic<int> break_after_deltas{0};
  // Requests seen, and the last request ids.
  std::atomic<int> calls{0};
  std::atomic<int> chunks{0};
};

class FakeSessions final : public v1::Sessions::Service {
 public:
  explicit FakeSessions(Faults& faults) : faults_(faults) {}

  grpc::Status CreateSession(grpc::ServerContext*, const v1::CreateSessionRequest* request,
                             v1::CreateSessionResponse* response) override;
  grpc::Status GetSession(grpc::ServerContext*, const v1::GetSessionRequest* request,
                          v1::Session* response) override;
  grpc::Status ListSessions(grpc::ServerContext*, const v1::ListSessionsRequest* request,
                            v1::ListSessionsResponse* response) override;
  grpc::Status CloseSession(grpc::ServerContext*, const v1::CloseSessionRequest* request,
                            v1::CloseSessionResponse*) override;
  grpc::Status Append(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::AppendResponse, v1::AppendRequest>* stream) override;
  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status Commit(grpc::ServerContext*, const v1::CommitRequest* request,
                      v1::CommitResponse* response) override;
  grpc::Status Fork(grpc::ServerContext*, const v1::ForkRequest* request,
                    v1::ForkResponse* response) override;
  grpc::Status Rewind(grpc::ServerContext*, const v1::RewindRequest* request,
                      v1::RewindResponse* response) override;

  struct Entry {
    v1::Session session;
    std::string text;
  };
  std::string TextOf(const std::string& id);
  std::map<std::string, v1::Ref> refs();
  // Refs of the library, by name; also what States serves.
  absl::Mutex mutex;
  std::map<std::string, Entry> sessions ABSL_GUARDED_BY(mutex);
  std::map<std::string, v1::Ref> refs_by_name ABSL_GUARDED_BY(mutex);
  std::map<std::string, std::pair<v1::State, std::string>> states ABSL_GUARDED_BY(mutex);
  std::map<std::string, std::string> acknowledged ABSL_GUARDED_BY(mutex);  // request id -> answer
  std::vector<std::string> request_ids ABSL_GUARDED_BY(mutex);

 private:
  // UNAVAILABLE if the request or (with `answer`) the answer is to be lost.
  grpc::Status MaybeLose(bool answer);
  // Records the id; true and the first answer if it was acknowledged before.
  bool Repeated(const std::string& request_id, google::protobuf::Message& answer);
  void Acknowledge(const std::string& request_id, const google::protobuf::Message& answer);

  Faults& faults_;
};

class FakeStates final : public v1::States::Service {
 public:
  explicit FakeStates(FakeSessions& sessions) : library_(sessions) {}
  grpc::Status GetState(grpc::ServerContext*, const v1::GetStateRequest* request,
                        v1::State* response) override;
  grpc::Status ListStates(grpc::ServerContext*, const v1::ListStatesRequest* request,
                          v1::ListStatesResponse* response) override;
  grpc::Status GetTokens(grpc::ServerContext*, const v1::GetTokensRequest* request,
                         v1::GetTokensResponse* response) override;
  // States whose text has the query's; judged if a rerank was asked for.
  grpc::Status Search(grpc::ServerContext*, const v1::SearchRequest* request,
                      v1::SearchResponse* response) override;
  grpc::Status GetRef(grpc::ServerContext*, const v1::GetRefRequest* request,
                      v1::Ref* response) override;
  grpc::Status ListRefs(grpc::ServerContext*, const v1::ListRefsRequest* request,
                        v1::ListRefsResponse* response) override;
  grpc::Status SetRef(grpc::ServerContext*, const v1::SetRefRequest* request,
                      v1::Ref* response) override;

 private:
  FakeSessions& library_;
};

class FakeAdmin final : public v1::Admin::Service {
 public:
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::ServerStatus* response) override;
};

// Listens on a free port of the loopback interface from construction to destruction.
class FakeServer {
 public:
  FakeServer();
  ~FakeServer();

  const std::string& address() const { return address_; }

  Faults faults;
  FakeSessions sessions{faults};

 private:
  FakeStates states_{sessions};
  FakeAdmin admin_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace anabranch::testing
