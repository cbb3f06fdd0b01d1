#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/library_handlers.h"
#include "service/model_router.h"
#include "service/names.h"
#include "service/paging.h"
#include "service/proto_conversion.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status RequireStateId(const std::string& field, const std::string& id) {
  if (IsStateId(id)) return absl::OkStatus();
  return InvalidField(field, "must be \"st-\" and 40 hex digits");
}

absl::Status ApplyMask(const v1::UpdateStateRequest& request, UpdateState* update) {
  if (request.update_mask().paths().empty()) {
    return InvalidField("update_mask", "must name labels, expire_time or pinned");
  }
  for (const std::string& path : request.update_mask().paths()) {
    if (path == "labels") {
      ANABRANCH_ASSIGN_OR_RETURN(update->labels, ParseLabels(request.labels()));
    } else if (path == "expire_time") {
      update->expires =
          request.has_expire_time() ? FromProto(request.expire_time()) : absl::InfiniteFuture();
    } else if (path == "pinned") {
      update->pinned = request.pinned();
    } else {
      return InvalidField("update_mask", "may name only labels, expire_time and pinned");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> TokensOf(const ServiceContext& service, const Call& call,
                                              const v1::GetTokensRequest& request) {
  switch (request.source_case()) {
    case v1::GetTokensRequest::kStateId: {
      ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                                 ResolveState(*service.store, call.tenant, request.state_id()));
      return service.store->GetTokens(call.tenant, state.id);
    }
    case v1::GetTokensRequest::kSessionId:
      ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", request.session_id()));
      return service.sessions->Tokens(call.tenant, request.session_id());
    case v1::GetTokensRequest::SOURCE_NOT_SET:
      break;
  }
  return InvalidField("source", "one of state_id and session_id must be set");
}

}  // namespace

absl::Status HandleGetState(const ServiceContext& service, const Call& call,
                            const v1::GetStateRequest& request, v1::State* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                             ResolveState(*service.store, call.tenant, request.id()));
  *response = ToProto(state);
  return absl::OkStatus();
}

absl::Status HandleListStates(const ServiceContext& service, const Call& call,
                              const v1::ListStatesRequest& request,
                              v1::ListStatesResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const PageRequest page,
                             ParsePage(request.page_size(), request.page_token()));
  StateFilter filter;
  if (!request.model_fingerprint().empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(
        filter.fingerprint,
        service.router->FingerprintOf("model_fingerprint", request.model_fingerprint()));
  }
  ANABRANCH_ASSIGN_OR_RETURN(filter.labels, ParseLabels(request.labels()));
  if (!request.descendant_of().empty()) {
    ANABRANCH_RETURN_IF_ERROR(RequireStateId("descendant_of", request.descendant_of()));
    filter.descendant_of = request.descendant_of();
  }
  if (request.has_created_after()) filter.created_after = FromProto(request.created_after());
  if (request.has_created_before()) filter.created_before = FromProto(request.created_before());
  ANABRANCH_ASSIGN_OR_RETURN(auto listed, service.store->ListStates(call.tenant, filter, page));
  for (const StateRecord& state : listed.items) *response->add_states() = ToProto(state);
  response->set_next_page_token(listed.next);
  return absl::OkStatus();
}

absl::Status HandleUpdateState(const ServiceContext& service, const Call& call,
                               const v1::UpdateStateRequest& request, v1::State* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service.answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(RequireStateId("id", request.id()));
  UpdateState update;
  update.tenant = call.tenant;
  update.id = request.id();
  ANABRANCH_RETURN_IF_ERROR(ApplyMask(request, &update));
  ANABRANCH_ASSIGN_OR_RETURN(update.etag, ParseEtag(request.etag()));
  ANABRANCH_ASSIGN_OR_RETURN(StateRecord state,
                             ResolveState(*service.store, call.tenant, request.id()));
  if (update.labels) state.labels = *update.labels;
  if (update.expires) state.expires = *update.expires;
  if (update.pinned) state.pinned = *update.pinned;
  Mutation mutation;
  mutation.operations.push_back(std::move(update));
  // A repeat gets this answer, with the etag from before: the library gives the new one on commit.
  *response = ToProto(state);
  claim.StageAnswer(*response, &mutation);
  const absl::Status status = WriteError(service.store->CommitAndWait(std::move(mutation)));
  if (absl::IsAborted(status)) return WithReason(status, "ETAG_MISMATCH");
  ANABRANCH_RETURN_IF_ERROR(status);
  ANABRANCH_ASSIGN_OR_RETURN(state, service.store->GetState(call.tenant, request.id()));
  *response = ToProto(state);
  return absl::OkStatus();
}

absl::Status HandleDeleteState(const ServiceContext& service, const Call& call,
                               const v1::DeleteStateRequest& request,
                               v1::DeleteStateResponse* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service.answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(RequireStateId("id", request.id()));
  Mutation mutation;
  mutation.operations.push_back(DeleteState{call.tenant, request.id()});
  claim.StageAnswer(*response, &mutation);
  const absl::Status status = WriteError(service.store->CommitAndWait(std::move(mutation)));
  return WithReason(status, absl::IsNotFound(status) ? "STATE_NOT_FOUND" : "STATE_IN_USE");
}

absl::Status HandleGetLineage(const ServiceContext& service, const Call& call,
                              const v1::GetLineageRequest& request,
                              v1::GetLineageResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const PageRequest page,
                             ParsePage(request.page_size(), request.page_token()));
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                             ResolveState(*service.store, call.tenant, request.id()));
  ANABRANCH_ASSIGN_OR_RETURN(auto lineage, service.store->GetLineage(call.tenant, state.id, page));
  for (const StateRecord& ancestor : lineage.items) *response->add_states() = ToProto(ancestor);
  response->set_next_page_token(lineage.next);
  return absl::OkStatus();
}

absl::Status HandleGetTokens(const ServiceContext& service, const Call& call,
                             const v1::GetTokensRequest& request, v1::GetTokensResponse* response) {
  if (request.offset() < 0) return InvalidField("offset", "must not be negative");
  if (request.limit() < 0) return InvalidField("limit", "must not be negative");
  if (request.limit() > kMaxTokensPerListing) {
    return LimitExceeded("limit", request.limit(), kMaxTokensPerListing);
  }
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, TokensOf(service, call, request));
  const int64_t total = tokens.size();
  const int64_t begin = std::min<int64_t>(request.offset(), total);
  const int64_t limit = request.limit() == 0 ? kMaxTokensPerListing : request.limit();
  const absl::Span<const int32_t> part =
      absl::MakeConstSpan(tokens).subspan(begin, std::min(limit, total - begin));
  response->set_total(total);
  response->set_text(service.model->Text(part));
  if (!request.text_only()) response->mutable_ids()->Add(part.begin(), part.end());
  return absl::OkStatus();
}

}  // namespace anabranch
