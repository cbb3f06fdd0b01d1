#include "service/error_info.h"
#include "service/names.h"
#include "service/session_handlers.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

absl::Status HandleCloseSession(ServiceContext* service, const Call& call,
                                const v1::CloseSessionRequest& request,
                                v1::CloseSessionResponse* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service->answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", request.session_id()));
  ANABRANCH_ASSIGN_OR_RETURN(const SessionLeasePtr lease,
                             service->sessions->Acquire(call.tenant, request.session_id()));
  Mutation mutation;
  mutation.operations.push_back(DeleteSession{call.tenant, request.session_id()});
  claim.StageAnswer(*response, &mutation);
  ANABRANCH_RETURN_IF_ERROR(WriteError(service->store->CommitAndWait(std::move(mutation))));
  lease->Discard();
  return absl::OkStatus();
}

}  // namespace anabranch
