#include <utility>

#include "service/checkpoint_policy.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "service/session_handlers.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

absl::Status HandleUpdateSession(ServiceContext* service, const Call& call,
                                 const v1::UpdateSessionRequest& request, v1::Session* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service->answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", request.session_id()));
  if (!request.has_checkpoints()) return InvalidField("checkpoints", "must be set");
  ANABRANCH_ASSIGN_OR_RETURN(const CheckpointPolicy policy,
                             ParseCheckpointPolicy(request.checkpoints()));
  ANABRANCH_ASSIGN_OR_RETURN(const SessionLeasePtr lease,
                             service->sessions->Acquire(call.tenant, request.session_id()));
  lease->journal().SetPolicy(policy);
  SessionView view = lease->journal().view();
  view.loaded = lease->sequence() != nullptr;
  *response = ToProto(view);
  Mutation mutation;
  lease->journal().StageRecord(&mutation);
  claim.StageAnswer(*response, &mutation);
  const absl::Status written = WriteError(service->store->CommitAndWait(std::move(mutation)));
  if (!written.ok()) lease->Discard();
  return written;
}

}  // namespace anabranch
