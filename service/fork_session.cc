#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "service/session_base.h"
#include "service/session_call.h"
#include "service/session_handlers.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// One Fork on its way. The leader holds the sequence that the others share: the source session, or
// the first of the new sessions if the source is a state.
struct Fork {
  ServiceContext* service;
  std::shared_ptr<SessionCall> leader;
  const v1::ForkRequest* request;
  v1::ForkResponse* response;
  HandlerDone done;
  std::vector<SessionRecord> records;  // of all new sessions
  bool leader_is_new = false;          // then it is records[0]
  std::vector<SessionLeasePtr> others;
};

absl::StatusOr<std::vector<std::string>> Names(const v1::ForkRequest& request) {
  std::vector<std::string> names(request.session_ids().begin(), request.session_ids().end());
  if (!names.empty() && (request.count() != 0 || !request.prefix().empty())) {
    return InvalidField("session_ids", "excludes count and prefix");
  }
  const int64_t count = names.empty() ? request.count() : static_cast<int64_t>(names.size());
  if (count < 1 || count > kMaxForks) {
    return InvalidField(names.empty() ? "count" : "session_ids",
                        absl::StrCat("asks for ", count, " sessions, must be 1 to ", kMaxForks));
  }
  if (names.empty()) {
    std::string prefix = request.prefix();
    if (prefix.empty()) prefix = request.session_id();
    if (prefix.empty()) prefix = request.ref_name();
    if (prefix.empty()) return InvalidField("prefix", "is needed to name forks of a state");
    for (int64_t i = 1; i <= count; ++i) names.push_back(absl::StrCat(prefix, "/", i));
  }
  absl::flat_hash_set<std::string> seen;
  for (const std::string& name : names) {
    ANABRANCH_RETURN_IF_ERROR(
        CheckName(request.session_ids().empty() ? "prefix" : "session_ids", name));
    if (!seen.insert(name).second)
      return InvalidField("session_ids", absl::StrCat("repeats ", name));
  }
  return names;
}

absl::Status PlanRecords(Fork& fork, const Call& call) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(*fork.request));
  SessionRecord record;
  record.tenant = call.tenant;
  record.fingerprint = fork.service->model->model()->fingerprint();
  record.created = record.updated = absl::Now();
  ANABRANCH_ASSIGN_OR_RETURN(record.labels, ParseLabels(fork.request->labels()));
  for (const std::string& name : names) {
    record.id = record.ref = name;
    fork.records.push_back(record);
  }
  return absl::OkStatus();
}

absl::StatusOr<StateRecord> SourceState(const Fork& fork, const Call& call) {
  const v1::ForkRequest& request = *fork.request;
  if (request.has_state_id()) {
    return ResolveStateId(*fork.service->store, call.tenant, request.state_id());
  }
  if (request.has_ref_name()) {
    return ResolveRefName(*fork.service->store, call.tenant, request.ref_name());
  }
  return InvalidField("source", "one of session_id, state_id and ref_name must be set");
}

absl::Status OpenLeader(Fork& fork, const Call& call) {
  if (fork.request->has_session_id()) return fork.leader->Open(fork.request->session_id(), 0);
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state, SourceState(fork, call));
  ANABRANCH_RETURN_IF_ERROR(CheckModel(state, *fork.service->model->model()));
  for (SessionRecord& record : fork.records) {
    record.head_state = state.id;
    record.head_position = state.token_count;
    record.thin_from = state.token_count + 1;
    record.base = BareCore(state);
  }
  fork.leader_is_new = true;
  return fork.leader->OpenNew(fork.records.front());
}

// Leases of the new sessions, each with a share of the leader's sequence.
absl::Status OpenOthers(Fork& fork) {
  const SequencePtr& source = fork.leader->lease().sequence();
  for (size_t i = fork.leader_is_new ? 1 : 0; i < fork.records.size(); ++i) {
    ANABRANCH_ASSIGN_OR_RETURN(SessionLeasePtr lease,
                               fork.service->sessions->AcquireNew(fork.records[i]));
    fork.others.push_back(std::move(lease));
    if (source == nullptr) continue;
    ANABRANCH_ASSIGN_OR_RETURN(fork.others.back()->sequence(), fork.service->engine->Fork(source));
  }
  return absl::OkStatus();
}

void FillAnswer(Fork& fork) {
  if (fork.leader_is_new) *fork.response->add_sessions() = fork.leader->session();
  for (const SessionLeasePtr& lease : fork.others) {
    SessionView view = lease->journal().view();
    view.loaded = lease->sequence() != nullptr;
    *fork.response->add_sessions() = ToProto(view);
  }
  *fork.response->mutable_usage() = fork.leader->usage();
}

absl::Status Stage(Fork& fork, Mutation* mutation) {
  ANABRANCH_RETURN_IF_ERROR(fork.leader->StageCapture({}, mutation, CaptureReason::kFork).status());
  if (!fork.leader_is_new) {
    const SessionRecord source = fork.leader->lease().journal().view().record;
    for (SessionRecord& record : fork.records) {
      record.head_state = source.head_state;
      record.head_position = source.head_position;
      record.thin_from = source.head_position + 1;
      record.checkpoints = source.checkpoints;
      record.base = source.base;
    }
  }
  ANABRANCH_RETURN_IF_ERROR(OpenOthers(fork));
  for (const SessionLeasePtr& lease : fork.others) lease->journal().StageRecord(mutation);
  return absl::OkStatus();
}

void Write(const std::shared_ptr<Fork>& fork) {
  Mutation mutation;
  const absl::Status staged = Stage(*fork, &mutation);
  if (!staged.ok()) {
    // What was staged will not be written: the leader must not believe in its capture.
    fork->leader->lease().Discard();
    for (const SessionLeasePtr& lease : fork->others) lease->Discard();
    return fork->done(staged);
  }
  fork->leader->Complete(
      std::move(mutation),
      [fork] {
        FillAnswer(*fork);
        return fork->response;
      },
      [fork](const absl::Status& status) {
        for (const SessionLeasePtr& lease : fork->others) {
          if (!status.ok()) lease->Discard();
          lease->Release();
        }
        if (!status.ok() && fork->leader_is_new) fork->leader->lease().Discard();
        fork->done(status);
      });
}

absl::StatusOr<bool> Begin(Fork& fork, const Call& call) {
  ANABRANCH_ASSIGN_OR_RETURN(const bool repeat,
                             fork.leader->Claim(fork.request->request_id(), fork.response));
  if (repeat) return true;
  ANABRANCH_RETURN_IF_ERROR(PlanRecords(fork, call));
  ANABRANCH_RETURN_IF_ERROR(OpenLeader(fork, call));
  return false;
}

}  // namespace

void HandleFork(ServiceContext* service, const CallPtr& call, const v1::ForkRequest* request,
                v1::ForkResponse* response, const HandlerDone& done) {
  auto fork = std::make_shared<Fork>();
  fork->service = service;
  fork->leader = std::make_shared<SessionCall>(service, call);
  fork->request = request;
  fork->response = response;
  fork->done = [leader = fork->leader, done](const absl::Status& status) {
    leader->Release();
    done(status);
  };
  const auto repeat = Begin(*fork, *call);
  if (!repeat.ok()) return fork->done(repeat.status());
  if (*repeat) return fork->done(absl::OkStatus());
  if (fork->leader->token_count() == 0) return Write(fork);
  fork->leader->Load([fork](const absl::Status& loaded) {
    if (loaded.ok()) return Write(fork);
    if (fork->leader_is_new) fork->leader->lease().Discard();
    fork->done(loaded);
  });
}

}  // namespace anabranch
