#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "service/session_call.h"
#include "service/session_handlers.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// One Commit on its way.
struct Commit {
  ServiceContext* service;
  std::shared_ptr<SessionCall> session;
  const v1::CommitRequest* request;
  v1::CommitResponse* response;
  HandlerDone done;
  Labels labels;
  SessionRecord record;  // of the session, when the call began
  std::string ref;       // to move; empty: none
};

absl::Status RefMismatch(const std::string& name, const std::string& expected) {
  return ErrorWithReason(absl::StatusCode::kAborted, "REF_MISMATCH",
                         absl::StrCat("ref ", name, " does not point to ", expected, " now"),
                         {{"ref", name}});
}

// The mutation checks this again, atomically. Looking first keeps the session loaded when the
// answer is no.
absl::Status CheckRef(const Commit& commit) {
  const auto expected = ExpectedRefState(commit.request->expected_ref_state_id());
  if (!expected) return absl::OkStatus();
  const std::string& name = commit.ref;
  if (name.empty()) return InvalidField("expected_ref_state_id", "the session has no ref");
  const auto ref = commit.service->store->GetRef(commit.record.tenant, name);
  if (!ref.ok() && !absl::IsNotFound(ref.status())) return ref.status();
  const std::string now = ref.ok() ? ref->state_id : "";
  if (now == *expected) return absl::OkStatus();
  return RefMismatch(name, commit.request->expected_ref_state_id());
}

// Adds labels to a state that exists.
absl::Status StageLabels(const Commit& commit, StateRecord* state, Mutation* mutation) {
  if (commit.labels.empty()) return absl::OkStatus();
  for (const auto& [key, value] : commit.labels) state->labels[key] = value;
  if (state->labels.size() > kMaxLabels) {
    return LimitExceeded("labels", state->labels.size(), kMaxLabels);
  }
  UpdateState update;
  update.tenant = state->tenant;
  update.id = state->id;
  update.labels = state->labels;
  mutation->operations.push_back(std::move(update));
  return absl::OkStatus();
}

absl::StatusOr<StateRecord> StageState(const Commit& commit, Mutation* mutation) {
  ANABRANCH_ASSIGN_OR_RETURN(
      auto captured, commit.session->StageCapture(commit.labels, mutation, CaptureReason::kMark));
  if (captured) return *std::move(captured);
  ANABRANCH_ASSIGN_OR_RETURN(
      StateRecord state,
      commit.service->store->GetState(commit.record.tenant, commit.record.head_state));
  ANABRANCH_RETURN_IF_ERROR(StageLabels(commit, &state, mutation));
  return state;
}

// What the answer kept under the request id lacks is only the etags, which the library gives.
void RefreshEtags(const Commit& commit) {
  StateStore& store = *commit.service->store;
  const std::string& tenant = commit.record.tenant;
  if (const auto state = store.GetState(tenant, commit.response->state().id()); state.ok()) {
    *commit.response->mutable_state() = ToProto(*state);
  }
  if (commit.ref.empty()) return;
  if (const auto ref = store.GetRef(tenant, commit.ref); ref.ok()) {
    *commit.response->mutable_ref() = ToProto(*ref);
  }
}

void Write(const std::shared_ptr<Commit>& commit) {
  SessionCall& session = *commit->session;
  Mutation mutation;
  auto state = StageState(*commit, &mutation);
  if (!state.ok()) return commit->done(state.status());
  RefRecord ref{commit->record.tenant, commit->ref, state->id, absl::Now(), 0};
  if (!ref.name.empty()) {
    mutation.operations.push_back(
        SetRef{ref.tenant, ref.name, ref.state_id,
               ExpectedRefState(commit->request->expected_ref_state_id())});
  }
  session.Complete(
      std::move(mutation),
      [commit, state = *std::move(state), ref] {
        *commit->response->mutable_state() = ToProto(state);
        if (!ref.name.empty()) *commit->response->mutable_ref() = ToProto(ref);
        *commit->response->mutable_session() = commit->session->session();
        *commit->response->mutable_usage() = commit->session->usage();
        return commit->response;
      },
      [commit](absl::Status status) {
        if (absl::IsAborted(status)) {
          status = RefMismatch(commit->ref, commit->request->expected_ref_state_id());
        }
        if (status.ok()) RefreshEtags(*commit);
        commit->session->Release();
        commit->done(status);
      });
}

// A mark is a ref below the session's name, so that whoever lists refs finds it.
absl::StatusOr<std::string> RefToMove(const v1::CommitRequest& request,
                                      const SessionRecord& session) {
  if (request.mark().empty()) return session.ref;
  if (absl::StrContains(request.mark(), '/')) {
    return InvalidField("mark", "must be one segment of a name, without '/'");
  }
  ANABRANCH_RETURN_IF_ERROR(CheckName("mark", request.mark()));
  std::string name = absl::StrCat(session.id, "/marks/", request.mark());
  ANABRANCH_RETURN_IF_ERROR(CheckName("mark", name));
  return name;
}

absl::StatusOr<bool> Begin(Commit& commit) {
  ANABRANCH_ASSIGN_OR_RETURN(const bool repeat,
                             commit.session->Claim(commit.request->request_id(), commit.response));
  if (repeat) return true;
  ANABRANCH_ASSIGN_OR_RETURN(commit.labels, ParseLabels(commit.request->labels()));
  ANABRANCH_RETURN_IF_ERROR(commit.session->Open(commit.request->session_id(), 0));
  const SessionView view = commit.session->lease().journal().view();
  commit.record = view.record;
  ANABRANCH_ASSIGN_OR_RETURN(commit.ref, RefToMove(*commit.request, view.record));
  if (view.token_count == 0) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "EMPTY_CONTEXT",
                           "the session has read nothing yet: there is no state to commit");
  }
  ANABRANCH_RETURN_IF_ERROR(CheckRef(commit));
  return false;
}

}  // namespace

void HandleCommit(ServiceContext* service, const CallPtr& call, const v1::CommitRequest* request,
                  v1::CommitResponse* response, const HandlerDone& done) {
  auto commit = std::make_shared<Commit>();
  commit->service = service;
  commit->session = std::make_shared<SessionCall>(service, call);
  commit->request = request;
  commit->response = response;
  commit->done = [session = commit->session, done](const absl::Status& status) {
    session->Release();
    done(status);
  };
  const auto repeat = Begin(*commit);
  if (!repeat.ok()) return commit->done(repeat.status());
  if (*repeat) return commit->done(absl::OkStatus());
  // With a state at its end, a session that is not loaded need not be.
  if (commit->session->lease().journal().tail().empty()) return Write(commit);
  commit->session->Load([commit](const absl::Status& loaded) {
    if (!loaded.ok()) return commit->done(loaded);
    Write(commit);
  });
}

}  // namespace anabranch
