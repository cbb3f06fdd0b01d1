#include "service/sessions_service.h"

#include "service/append_reactor.h"
#include "service/delegate_reactor.h"
#include "service/generate_reactor.h"
#include "service/model_router.h"
#include "service/names.h"
#include "service/paging.h"
#include "service/proto_conversion.h"
#include "service/session_handlers.h"
#include "service/unary_call.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status GetSessionNow(ServiceContext* service, const Call& call,
                           const v1::GetSessionRequest& request, v1::Session* response) {
  ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", request.session_id()));
  SessionManager& sessions = *service->router->For(call.tenant, request)->sessions;
  ANABRANCH_ASSIGN_OR_RETURN(const SessionView view,
                             sessions.View(call.tenant, request.session_id()));
  *response = ToProto(view);
  return absl::OkStatus();
}

absl::Status ListSessionsNow(ServiceContext* service, const Call& call,
                             const v1::ListSessionsRequest& request,
                             v1::ListSessionsResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const PageRequest page,
                             ParsePage(request.page_size(), request.page_token()));
  ANABRANCH_ASSIGN_OR_RETURN(auto listed,
                             service->store->ListSessions(call.tenant, request.prefix(), page));
  for (const SessionRecord& record : listed.items) {
    const auto view = service->router->OfFingerprint(record.fingerprint)->sessions->ViewOf(record);
    if (absl::IsNotFound(view.status())) continue;  // closed since the page was read
    ANABRANCH_RETURN_IF_ERROR(view.status());
    *response->add_sessions() = ToProto(*view);
  }
  response->set_next_page_token(listed.next);
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* SessionsService::CreateSession(grpc::CallbackServerContext* context,
                                                         const v1::CreateSessionRequest* request,
                                                         v1::CreateSessionResponse* response) {
  const MethodTraits method = {"CreateSession", service_->limits.model_deadline, true};
  return RunUnary(service_, context, method, response,
                  [=, this](const CallPtr& call, const Done& done) {
                    const auto service = Router().ForNewSession(call->tenant, *request);
                    if (!service.ok()) return done(service.status());
                    HandleCreateSession(*service, call, request, response, done);
                  });
}

grpc::ServerUnaryReactor* SessionsService::GetSession(grpc::CallbackServerContext* context,
                                                      const v1::GetSessionRequest* request,
                                                      v1::Session* response) {
  const MethodTraits method = {"GetSession", service_->limits.quick_deadline};
  return RunBlocking(service_, context, method, response, [=, this](const Call& call) {
    return GetSessionNow(service_, call, *request, response);
  });
}

grpc::ServerUnaryReactor* SessionsService::ListSessions(grpc::CallbackServerContext* context,
                                                        const v1::ListSessionsRequest* request,
                                                        v1::ListSessionsResponse* response) {
  const MethodTraits method = {"ListSessions", service_->limits.quick_deadline};
  return RunBlocking(service_, context, method, response, [=, this](const Call& call) {
    return ListSessionsNow(service_, call, *request, response);
  });
}

grpc::ServerUnaryReactor* SessionsService::UpdateSession(grpc::CallbackServerContext* context,
                                                         const v1::UpdateSessionRequest* request,
                                                         v1::Session* response) {
  const MethodTraits method = {"UpdateSession", service_->limits.quick_deadline, true};
  return RunBlocking(service_, context, method, response, [=, this](const Call& call) {
    return HandleUpdateSession(Router().For(call.tenant, *request), call, *request, response);
  });
}

grpc::ServerUnaryReactor* SessionsService::CloseSession(grpc::CallbackServerContext* context,
                                                        const v1::CloseSessionRequest* request,
                                                        v1::CloseSessionResponse* response) {
  const MethodTraits method = {"CloseSession", service_->limits.quick_deadline, true};
  return RunBlocking(service_, context, method, response, [=, this](const Call& call) {
    return HandleCloseSession(Router().For(call.tenant, *request), call, *request, response);
  });
}

grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>* SessionsService::Append(
    grpc::CallbackServerContext* context) {
  return new AppendReactor(service_, context);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* SessionsService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return new GenerateReactor(service_, context, request);
}

grpc::ServerWriteReactor<v1::DelegateResponse>* SessionsService::Delegate(
    grpc::CallbackServerContext* context, const v1::DelegateRequest* request) {
  return new DelegateReactor(service_, context, request);
}

grpc::ServerUnaryReactor* SessionsService::Score(grpc::CallbackServerContext* context,
                                                 const v1::ScoreRequest* request,
                                                 v1::ScoreResponse* response) {
  const MethodTraits method = {"Score", service_->limits.model_deadline, true};
  return RunUnary(
      service_, context, method, response, [=, this](const CallPtr& call, const Done& done) {
        HandleScore(Router().For(call->tenant, *request), call, request, response, done);
      });
}

grpc::ServerUnaryReactor* SessionsService::Commit(grpc::CallbackServerContext* context,
                                                  const v1::CommitRequest* request,
                                                  v1::CommitResponse* response) {
  const MethodTraits method = {"Commit", service_->limits.model_deadline, true};
  return RunUnary(
      service_, context, method, response, [=, this](const CallPtr& call, const Done& done) {
        HandleCommit(Router().For(call->tenant, *request), call, request, response, done);
      });
}

grpc::ServerUnaryReactor* SessionsService::Fork(grpc::CallbackServerContext* context,
                                                const v1::ForkRequest* request,
                                                v1::ForkResponse* response) {
  const MethodTraits method = {"Fork", service_->limits.model_deadline, true};
  return RunUnary(service_, context, method, response,
                  [=, this](const CallPtr& call, const Done& done) {
                    HandleFork(Router().For(call->tenant, *request), call, request, response, done);
                  });
}

grpc::ServerUnaryReactor* SessionsService::SetAux(grpc::CallbackServerContext* context,
                                                  const v1::SetAuxRequest* request,
                                                  v1::SetAuxResponse* response) {
  const MethodTraits method = {"SetAux", service_->limits.model_deadline, true};
  return RunUnary(
      service_, context, method, response, [=, this](const CallPtr& call, const Done& done) {
        HandleSetAux(Router().For(call->tenant, *request), call, request, response, done);
      });
}

grpc::ServerUnaryReactor* SessionsService::Rewind(grpc::CallbackServerContext* context,
                                                  const v1::RewindRequest* request,
                                                  v1::RewindResponse* response) {
  const MethodTraits method = {"Rewind", service_->limits.quick_deadline, true};
  return RunBlocking(service_, context, method, response, [=, this](const Call& call) {
    return HandleRewind(Router().For(call.tenant, *request), call, *request, response);
  });
}

}  // namespace anabranch
