#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/library_handlers.h"
#include "service/names.h"
#include "service/paging.h"
#include "service/proto_conversion.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

absl::Status HandleGetRef(const ServiceContext& service, const Call& call,
                          const v1::GetRefRequest& request, v1::Ref* response) {
  ANABRANCH_RETURN_IF_ERROR(CheckName("name", request.name()));
  const auto ref = service.store->GetRef(call.tenant, request.name());
  if (!ref.ok()) return WithReason(ref.status(), "REF_NOT_FOUND");
  *response = ToProto(*ref);
  return absl::OkStatus();
}

absl::Status HandleListRefs(const ServiceContext& service, const Call& call,
                            const v1::ListRefsRequest& request, v1::ListRefsResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const PageRequest page,
                             ParsePage(request.page_size(), request.page_token()));
  ANABRANCH_ASSIGN_OR_RETURN(auto listed,
                             service.store->ListRefs(call.tenant, request.prefix(), page));
  for (const RefRecord& ref : listed.items) *response->add_refs() = ToProto(ref);
  response->set_next_page_token(listed.next);
  return absl::OkStatus();
}

absl::Status HandleSetRef(const ServiceContext& service, const Call& call,
                          const v1::SetRefRequest& request, v1::Ref* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service.answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(CheckRefName("name", request.name()));
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                             ResolveState(*service.store, call.tenant, request.state_id()));
  Mutation mutation;
  mutation.operations.push_back(
      SetRef{call.tenant, request.name(), state.id, ExpectedRefState(request.expected_state_id())});
  *response = ToProto(RefRecord{call.tenant, request.name(), state.id, absl::Now(), 0});
  claim.StageAnswer(*response, &mutation);
  const absl::Status status = WriteError(service.store->CommitAndWait(std::move(mutation)));
  if (absl::IsAborted(status)) return WithReason(status, "REF_MISMATCH");
  ANABRANCH_RETURN_IF_ERROR(status);
  const auto ref = service.store->GetRef(call.tenant, request.name());
  if (ref.ok()) *response = ToProto(*ref);  // moved again since: the answer is ours all the same
  return absl::OkStatus();
}

absl::Status HandleDeleteRef(const ServiceContext& service, const Call& call,
                             const v1::DeleteRefRequest& request, v1::DeleteRefResponse* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service.answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(CheckName("name", request.name()));
  const auto ref = service.store->GetRef(call.tenant, request.name());
  if (!ref.ok()) return WithReason(ref.status(), "REF_NOT_FOUND");
  Mutation mutation;
  mutation.operations.push_back(DeleteRef{call.tenant, request.name()});
  claim.StageAnswer(*response, &mutation);
  return WriteError(service.store->CommitAndWait(std::move(mutation)));
}

}  // namespace anabranch
