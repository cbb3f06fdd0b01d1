// What the States calls do. Each blocks on the library and returns when `response` is final.
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "anabranch/v1/states.pb.h"
#include "service/service_context.h"

namespace anabranch {

// Reading and changing states (state_handlers.cc).
absl::Status HandleGetState(const ServiceContext& service, const Call& call,
                            const v1::GetStateRequest& request, v1::State* response);
// One page, oldest first.
absl::Status HandleListStates(const ServiceContext& service, const Call& call,
                              const v1::ListStatesRequest& request,
                              v1::ListStatesResponse* response);
absl::Status HandleUpdateState(const ServiceContext& service, const Call& call,
                               const v1::UpdateStateRequest& request, v1::State* response);
// FAILED_PRECONDITION (STATE_IN_USE) while a ref, a session or another state needs it.
absl::Status HandleDeleteState(const ServiceContext& service, const Call& call,
                               const v1::DeleteStateRequest& request,
                               v1::DeleteStateResponse* response);
// Keeps a state in another codec (recode_state.cc). FAILED_PRECONDITION (STATE_NOT_REBUILDABLE) for
// what only replay could give of a computed state.
absl::Status HandleRecodeState(const ServiceContext& service, const Call& call,
                               const v1::RecodeStateRequest& request,
                               v1::RecodeStateResponse* response);
absl::Status HandleGetLineage(const ServiceContext& service, const Call& call,
                              const v1::GetLineageRequest& request,
                              v1::GetLineageResponse* response);
// The positions with a state (state_log.cc).
absl::Status HandleGetLog(const ServiceContext& service, const Call& call,
                          const v1::GetLogRequest& request, v1::GetLogResponse* response);
// States with all their parents (state_graph.cc).
absl::Status HandleGetGraph(const ServiceContext& service, const Call& call,
                            const v1::GetGraphRequest& request, v1::GetGraphResponse* response);
// How large the tensors of a state are (state_statistics.cc). FAILED_PRECONDITION for a state of
// another model.
absl::Status HandleGetStateStats(const ServiceContext& service, const Call& call,
                                 const v1::GetStateStatsRequest& request, v1::StateStats* response);
// Of a session: what is durable.
absl::Status HandleGetTokens(const ServiceContext& service, const Call& call,
                             const v1::GetTokensRequest& request, v1::GetTokensResponse* response);

// One state of several, computed here (merge_states.cc). FAILED_PRECONDITION for states of another
// model (MODEL_MISMATCH) and for an ancestor that is none of all inputs (NO_COMMON_ANCESTOR).
absl::Status HandleMerge(const ServiceContext& service, const Call& call,
                         const v1::MergeRequest& request, v1::MergeResponse* response);

// The states that know about something (search_states.cc). Runs the model; `done` is called once,
// with the response filled.
void HandleSearch(ServiceContext* service, const CallPtr& call, const v1::SearchRequest* request,
                  v1::SearchResponse* response, const std::function<void(absl::Status)>& done);

// One state of one (derive_states.cc), and how two differ (diff_states.cc). FAILED_PRECONDITION for
// another model (MODEL_MISMATCH), for points inside computed states (NO_SUCH_POINT) and for states
// that the one does not go on from (NOT_AN_ANCESTOR). Missing points run the engine.
absl::Status HandleExtractSpan(const ServiceContext& service, const Call& call,
                               const v1::SpanRequest& request, v1::ComputedState* response);
absl::Status HandleForget(const ServiceContext& service, const Call& call,
                          const v1::SpanRequest& request, v1::ComputedState* response);
absl::Status HandleDecay(const ServiceContext& service, const Call& call,
                         const v1::DecayRequest& request, v1::ComputedState* response);
absl::Status HandleDiff(const ServiceContext& service, const Call& call,
                        const v1::DiffRequest& request, v1::DiffResponse* response);

// Refs (ref_handlers.cc).
absl::Status HandleGetRef(const ServiceContext& service, const Call& call,
                          const v1::GetRefRequest& request, v1::Ref* response);
absl::Status HandleListRefs(const ServiceContext& service, const Call& call,
                            const v1::ListRefsRequest& request, v1::ListRefsResponse* response);
// ABORTED (REF_MISMATCH) if the request expects another state.
absl::Status HandleSetRef(const ServiceContext& service, const Call& call,
                          const v1::SetRefRequest& request, v1::Ref* response);
absl::Status HandleDeleteRef(const ServiceContext& service, const Call& call,
                             const v1::DeleteRefRequest& request, v1::DeleteRefResponse* response);

}  // namespace anabranch
