#include "service/states_service.h"

#include "service/library_handlers.h"
#include "service/model_router.h"
#include "service/unary_call.h"

namespace anabranch {
namespace {

constexpr bool kReads = false, kWrites = true;

template <typename Request, typename Response>
using Handler = absl::Status (*)(const ServiceContext&, const Call&, const Request&, Response*);

// Binds one handler to one call.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* Bind(ServiceContext* service, grpc::CallbackServerContext* context,
                               const MethodTraits& method, const Request* request,
                               Response* response, Handler<Request, Response> handler) {
  return RunBlocking(service, context, method, response, [=](const Call& call) {
    const ServiceContext& own = *service->router->For(call.tenant, *request);
    return handler(own, call, *request, response);
  });
}

template <typename Request, typename Response>
grpc::ServerUnaryReactor* Run(ServiceContext* service, grpc::CallbackServerContext* context,
                              const char* name, bool writes, const Request* request,
                              Response* response, Handler<Request, Response> handler) {
  return Bind(service, context, {name, service->limits.quick_deadline, writes}, request, response,
              handler);
}

// The same for calls that compute with states.
template <typename Request, typename Response>
grpc::ServerUnaryReactor* RunLong(ServiceContext* service, grpc::CallbackServerContext* context,
                                  const char* name, bool writes, const Request* request,
                                  Response* response, Handler<Request, Response> handler) {
  return Bind(service, context, {name, service->limits.model_deadline, writes}, request, response,
              handler);
}

}  // namespace

grpc::ServerUnaryReactor* StatesService::GetState(grpc::CallbackServerContext* context,
                                                  const v1::GetStateRequest* request,
                                                  v1::State* response) {
  return Run(service_, context, "GetState", kReads, request, response, HandleGetState);
}

grpc::ServerUnaryReactor* StatesService::ListStates(grpc::CallbackServerContext* context,
                                                    const v1::ListStatesRequest* request,
                                                    v1::ListStatesResponse* response) {
  return Run(service_, context, "ListStates", kReads, request, response, HandleListStates);
}

grpc::ServerUnaryReactor* StatesService::UpdateState(grpc::CallbackServerContext* context,
                                                     const v1::UpdateStateRequest* request,
                                                     v1::State* response) {
  return Run(service_, context, "UpdateState", kWrites, request, response, HandleUpdateState);
}

grpc::ServerUnaryReactor* StatesService::DeleteState(grpc::CallbackServerContext* context,
                                                     const v1::DeleteStateRequest* request,
                                                     v1::DeleteStateResponse* response) {
  return Run(service_, context, "DeleteState", kWrites, request, response, HandleDeleteState);
}

grpc::ServerUnaryReactor* StatesService::RecodeState(grpc::CallbackServerContext* context,
                                                     const v1::RecodeStateRequest* request,
                                                     v1::RecodeStateResponse* response) {
  return RunLong(service_, context, "RecodeState", kWrites, request, response, HandleRecodeState);
}

grpc::ServerUnaryReactor* StatesService::GetLineage(grpc::CallbackServerContext* context,
                                                    const v1::GetLineageRequest* request,
                                                    v1::GetLineageResponse* response) {
  return Run(service_, context, "GetLineage", kReads, request, response, HandleGetLineage);
}

grpc::ServerUnaryReactor* StatesService::GetLog(grpc::CallbackServerContext* context,
                                                const v1::GetLogRequest* request,
                                                v1::GetLogResponse* response) {
  return Run(service_, context, "GetLog", kReads, request, response, HandleGetLog);
}

grpc::ServerUnaryReactor* StatesService::GetGraph(grpc::CallbackServerContext* context,
                                                  const v1::GetGraphRequest* request,
                                                  v1::GetGraphResponse* response) {
  return Run(service_, context, "GetGraph", kReads, request, response, HandleGetGraph);
}

grpc::ServerUnaryReactor* StatesService::GetStateStats(grpc::CallbackServerContext* context,
                                                       const v1::GetStateStatsRequest* request,
                                                       v1::StateStats* response) {
  return Run(service_, context, "GetStateStats", kReads, request, response, HandleGetStateStats);
}

grpc::ServerUnaryReactor* StatesService::GetTokens(grpc::CallbackServerContext* context,
                                                   const v1::GetTokensRequest* request,
                                                   v1::GetTokensResponse* response) {
  return Run(service_, context, "GetTokens", kReads, request, response, HandleGetTokens);
}

grpc::ServerUnaryReactor* StatesService::Merge(grpc::CallbackServerContext* context,
                                               const v1::MergeRequest* request,
                                               v1::MergeResponse* response) {
  return RunLong(service_, context, "Merge", kWrites, request, response, HandleMerge);
}

grpc::ServerUnaryReactor* StatesService::ExtractSpan(grpc::CallbackServerContext* context,
                                                     const v1::SpanRequest* request,
                                                     v1::ComputedState* response) {
  return RunLong(service_, context, "ExtractSpan", kWrites, request, response, HandleExtractSpan);
}

grpc::ServerUnaryReactor* StatesService::Forget(grpc::CallbackServerContext* context,
                                                const v1::SpanRequest* request,
                                                v1::ComputedState* response) {
  return RunLong(service_, context, "Forget", kWrites, request, response, HandleForget);
}

grpc::ServerUnaryReactor* StatesService::Decay(grpc::CallbackServerContext* context,
                                               const v1::DecayRequest* request,
                                               v1::ComputedState* response) {
  return RunLong(service_, context, "Decay", kWrites, request, response, HandleDecay);
}

grpc::ServerUnaryReactor* StatesService::Diff(grpc::CallbackServerContext* context,
                                              const v1::DiffRequest* request,
                                              v1::DiffResponse* response) {
  return RunLong(service_, context, "Diff", kReads, request, response, HandleDiff);
}

grpc::ServerUnaryReactor* StatesService::Search(grpc::CallbackServerContext* context,
                                                const v1::SearchRequest* request,
                                                v1::SearchResponse* response) {
  const MethodTraits method = {"Search", service_->limits.model_deadline, kWrites};
  return RunUnary(service_, context, method, response,
                  [=, this](const CallPtr& call, const Done& done) {
                    HandleSearch(service_->router->ForSearch(call->tenant, *request), call, request,
                                 response, done);
                  });
}

grpc::ServerUnaryReactor* StatesService::GetRef(grpc::CallbackServerContext* context,
                                                const v1::GetRefRequest* request,
                                                v1::Ref* response) {
  return Run(service_, context, "GetRef", kReads, request, response, HandleGetRef);
}

grpc::ServerUnaryReactor* StatesService::ListRefs(grpc::CallbackServerContext* context,
                                                  const v1::ListRefsRequest* request,
                                                  v1::ListRefsResponse* response) {
  return Run(service_, context, "ListRefs", kReads, request, response, HandleListRefs);
}

grpc::ServerUnaryReactor* StatesService::SetRef(grpc::CallbackServerContext* context,
                                                const v1::SetRefRequest* request,
                                                v1::Ref* response) {
  return Run(service_, context, "SetRef", kWrites, request, response, HandleSetRef);
}

grpc::ServerUnaryReactor* StatesService::DeleteRef(grpc::CallbackServerContext* context,
                                                   const v1::DeleteRefRequest* request,
                                                   v1::DeleteRefResponse* response) {
  return Run(service_, context, "DeleteRef", kWrites, request, response, HandleDeleteRef);
}

}  // namespace anabranch
