#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "service/session_call.h"
#include "service/session_handlers.h"
#include "service/state_points.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Where a rewound session goes on: a state, and the tokens between it and the point.
struct Base {
  std::string state_id;  // empty: the beginning
  int64_t position = 0;
  std::vector<int32_t> replay;
};

// The deepest state at or before `target` that the session's head goes on from.
absl::Status FindState(StateStore& store, const SessionRecord& record, int64_t target, Base* base) {
  if (record.head_state.empty()) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord head,
                             store.GetState(record.tenant, record.head_state));
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord found, FindPoint(store, head, target));
  base->state_id = found.id;
  base->position = found.token_count;
  return absl::OkStatus();
}

absl::StatusOr<Base> FindBase(const ServiceContext& service, SessionLease& lease, int64_t target) {
  const SessionRecord record = lease.journal().view().record;
  const std::vector<int32_t> tail = lease.journal().tail();
  Base base;
  if (target >= record.head_position) {
    base.state_id = record.head_state;
    base.position = record.head_position;
    base.replay.assign(tail.begin(), tail.begin() + (target - record.head_position));
    return base;
  }
  ANABRANCH_RETURN_IF_ERROR(FindState(*service.store, record, target, &base));
  if (base.position == target) return base;
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens,
                             service.store->GetTokens(record.tenant, record.head_state));
  base.replay.assign(tokens.begin() + base.position, tokens.begin() + target);
  return base;
}

// The log is replaced with the session: a log only grows at its end.
Mutation ReplaceSession(const SessionRecord& record, std::vector<int32_t> replay) {
  Mutation mutation;
  mutation.operations.push_back(DeleteSession{record.tenant, record.id});
  mutation.operations.push_back(PutSession{record});
  if (!replay.empty()) {
    mutation.operations.push_back(
        AppendLog{record.tenant, record.id, record.head_position, std::move(replay)});
  }
  return mutation;
}

}  // namespace

absl::Status HandleRewind(ServiceContext* service, const Call& call,
                          const v1::RewindRequest& request, v1::RewindResponse* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service->answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", request.session_id()));
  ANABRANCH_ASSIGN_OR_RETURN(const SessionLeasePtr lease,
                             service->sessions->Acquire(call.tenant, request.session_id()));
  SessionView view = lease->journal().view();
  ANABRANCH_RETURN_IF_ERROR(
      CheckTokenCount(request.session_id(), view.token_count, request.expected_token_count()));
  const int64_t target = request.token_count();
  if (target < 0 || target > view.token_count) {
    return InvalidField("token_count", absl::StrCat("is ", target, ", must be 0 to the session's ",
                                                    view.token_count));
  }
  ANABRANCH_ASSIGN_OR_RETURN(Base base, FindBase(*service, *lease, target));
  response->set_base_state_id(base.state_id);
  response->set_tokens_to_replay(base.replay.size());
  response->set_tokens_dropped(view.token_count - target);
  if (request.dry_run() || target == view.token_count) {
    *response->mutable_session() = ToProto(view);
    return absl::OkStatus();
  }
  view.record.head_state = base.state_id;
  view.record.head_position = base.position;
  view.record.thin_from = std::min(view.record.thin_from, target + 1);
  // Before the end of its base the session goes on from a state of its own again.
  if (target < view.record.base.position) view.record.base = SessionBase();
  view.record.updated = absl::Now();
  view.token_count = view.durable_token_count = target;
  *response->mutable_session() = ToProto(view);
  Mutation mutation = ReplaceSession(view.record, std::move(base.replay));
  claim.StageAnswer(*response, &mutation);
  // The sequence in the slot has read too much: the next use starts from the library.
  lease->Discard();
  return WriteError(service->store->CommitAndWait(std::move(mutation)));
}

}  // namespace anabranch
