// Sessions as the API defines them: each method to its handler or reactor.
#pragma once

#include "anabranch/v1/sessions.grpc.pb.h"
#include "service/service_context.h"

namespace anabranch {

class SessionsService final : public v1::Sessions::CallbackService {
 public:
  explicit SessionsService(ServiceContext* service) : service_(service) {}

  // Runs the model for a history.
  grpc::ServerUnaryReactor* CreateSession(grpc::CallbackServerContext* context,
                                          const v1::CreateSessionRequest* request,
                                          v1::CreateSessionResponse* response) override;
  // The library and what is live.
  grpc::ServerUnaryReactor* GetSession(grpc::CallbackServerContext* context,
                                       const v1::GetSessionRequest* request,
                                       v1::Session* response) override;
  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* context,
                                         const v1::ListSessionsRequest* request,
                                         v1::ListSessionsResponse* response) override;
  // Only the checkpoint policy can change.
  grpc::ServerUnaryReactor* UpdateSession(grpc::CallbackServerContext* context,
                                          const v1::UpdateSessionRequest* request,
                                          v1::Session* response) override;
  grpc::ServerUnaryReactor* CloseSession(grpc::CallbackServerContext* context,
                                         const v1::CloseSessionRequest* request,
                                         v1::CloseSessionResponse* response) override;
  // Streams: the reactors own themselves.
  grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* Append(
      grpc::CallbackServerContext* context) override;
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::DelegateResponse>* Delegate(
      grpc::CallbackServerContext* context, const v1::DelegateRequest* request) override;
  // Run the model.
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Commit(grpc::CallbackServerContext* context,
                                   const v1::CommitRequest* request,
                                   v1::CommitResponse* response) override;
  // Runs the model only if the source's end must be restored or captured first.
  grpc::ServerUnaryReactor* Fork(grpc::CallbackServerContext* context,
                                 const v1::ForkRequest* request,
                                 v1::ForkResponse* response) override;
  // Runs the model only if tokens have to be replayed first.
  grpc::ServerUnaryReactor* SetAux(grpc::CallbackServerContext* context,
                                   const v1::SetAuxRequest* request,
                                   v1::SetAuxResponse* response) override;
  // The library alone; the model runs at the session's next use.
  grpc::ServerUnaryReactor* Rewind(grpc::CallbackServerContext* context,
                                   const v1::RewindRequest* request,
                                   v1::RewindResponse* response) override;

 private:
  const ModelRouter& Router() const { return *service_->router; }

  ServiceContext* const service_;  // of the first model; outlives this
};

}  // namespace anabranch
