#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/session_base.h"
#include "service/session_call.h"
#include "service/session_handlers.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// A session about to exist: its record, and the tokens still to read into it.
struct Plan {
  SessionRecord record;
  std::vector<int32_t> unread;
  int64_t branch = 0;  // of them, up to the branch point; 0: none
  Mutation base;       // stores the state it starts from, if that is new
};

absl::Status StartFrom(const ServiceContext& service, const StateRecord& state, Plan* plan) {
  ANABRANCH_RETURN_IF_ERROR(CheckModel(state, *service.model->model()));
  plan->record.head_state = state.id;
  plan->record.head_position = state.token_count;
  plan->record.thin_from = state.token_count + 1;
  return absl::OkStatus();
}

// From the core that is planned (or none) with auxiliary states: without reading anything.
absl::Status AddAuxiliaries(const ServiceContext& service, Call& call,
                            const v1::CreateSessionRequest& request, Plan* plan) {
  if (request.has_history()) {
    return InvalidField("aux",
                        "goes with a state or a ref to start from, not with a history: "
                        "create the session first, then SetAux");
  }
  std::vector<AuxState> aux;
  ANABRANCH_RETURN_IF_ERROR(AddAux(service, call, "aux", request.aux(), &aux));
  SessionRecord& record = plan->record;
  ANABRANCH_ASSIGN_OR_RETURN(BaseState made, MakeBase(service, call, record.base.core,
                                                      std::move(aux), /*head=*/"", &call.usage));
  record.base = std::move(made.base);
  if (made.merged.has_value()) {
    ANABRANCH_ASSIGN_OR_RETURN(PutState put,
                               StageComputed(service, call, std::move(made.merged->computation),
                                             std::move(made.merged->image), &call.usage));
    record.base.state = put.record.id;
    plan->base.operations.push_back(std::move(put));
  }
  call.usage.set_tokens_reused(record.base.position);
  record.head_state = record.base.state;
  record.head_position = record.base.position;
  record.thin_from = record.base.position + 1;
  return absl::OkStatus();
}

absl::Status StartFromHistory(const ServiceContext& service, const Call& call,
                              const v1::Content& history, Plan* plan, v1::Usage* usage) {
  const int64_t limit =
      std::min(service.limits.max_append_tokens, service.limits.max_context_tokens);
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                             service.model->Encode(history, /*context=*/{}, limit, "history"));
  if (tokens.empty()) return InvalidField("history", "must not be empty");
  const Model& model = *service.model->model();
  const PrefixKind kind = service.storing.BasesFor(plan->record.checkpoints);
  ANABRANCH_ASSIGN_OR_RETURN(const auto found,
                             service.store->FindPrefix(call.tenant, model.fingerprint(),
                                                       model.numerics_profile(), tokens, kind));
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t branch,
                             service.store->FindBranchPoint(call.tenant, model.fingerprint(),
                                                            model.numerics_profile(), tokens));
  if (found) {
    ANABRANCH_RETURN_IF_ERROR(StartFrom(service, *found, plan));
    tokens.erase(tokens.begin(), tokens.begin() + found->token_count);
  } else {
    usage->set_miss_reason("no stored state of this model has read a prefix of the history");
  }
  const int64_t start = plan->record.head_position;
  const int64_t apart = branch - start;
  if (apart >= kMinBranchTokens && apart < static_cast<int64_t>(tokens.size())) {
    plan->branch = apart;
  }
  plan->unread = std::move(tokens);
  return absl::OkStatus();
}

absl::StatusOr<Plan> MakePlan(const ServiceContext& service, Call& call,
                              const v1::CreateSessionRequest& request) {
  Plan plan;
  SessionRecord& record = plan.record;
  record.tenant = call.tenant;
  record.id = request.session_id().empty() ? RandomSessionId() : request.session_id();
  ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", record.id));
  if (request.ref() != "-") {
    record.ref = request.ref().empty() ? record.id : request.ref();
    ANABRANCH_RETURN_IF_ERROR(CheckName("ref", record.ref));
  }
  ANABRANCH_ASSIGN_OR_RETURN(record.labels, ParseLabels(request.labels()));
  ANABRANCH_ASSIGN_OR_RETURN(record.checkpoints, ParseCheckpointPolicy(request.checkpoints()));
  record.fingerprint = service.model->model()->fingerprint();
  record.created = record.updated = absl::Now();
  switch (request.from_case()) {
    case v1::CreateSessionRequest::kStateId: {
      ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                                 ResolveStateId(*service.store, call.tenant, request.state_id()));
      ANABRANCH_RETURN_IF_ERROR(StartFrom(service, state, &plan));
      record.base = BareCore(state);
      break;
    }
    case v1::CreateSessionRequest::kRefName: {
      ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                                 ResolveRefName(*service.store, call.tenant, request.ref_name()));
      ANABRANCH_RETURN_IF_ERROR(StartFrom(service, state, &plan));
      record.base = BareCore(state);
      break;
    }
    case v1::CreateSessionRequest::kHistory:
      ANABRANCH_RETURN_IF_ERROR(
          StartFromHistory(service, call, request.history(), &plan, &call.usage));
      break;
    case v1::CreateSessionRequest::FROM_NOT_SET:
      break;
  }
  if (!request.aux().empty()) {
    ANABRANCH_RETURN_IF_ERROR(AddAuxiliaries(service, call, request, &plan));
  }
  return plan;
}

// The branch-point rule: what a second history shares with a first is read once more, and a third
// time never. The state there is written without waiting; what fails, fails Complete.
absl::Status CaptureBranchPoint(SessionCall& session) {
  Mutation mutation;
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<StateRecord> state,
                             session.StageCapture({}, &mutation, CaptureReason::kFork));
  if (!state.has_value()) return absl::OkStatus();
  session.lease().journal().Commit(std::move(mutation), nullptr);
  session.usage().set_branch_token_count(state->token_count);
  return absl::OkStatus();
}

void ReadHistory(const std::shared_ptr<SessionCall>& session, int64_t branch,
                 const std::vector<int32_t>& unread, const SessionCall::Done& done) {
  if (branch == 0) return session->Read(unread, done);
  const auto middle = unread.begin() + branch;
  session->Read(
      {unread.begin(), middle},
      [session, done, rest = std::vector<int32_t>(middle, unread.end())](const absl::Status& read) {
        if (!read.ok()) return done(read);
        const absl::Status captured = CaptureBranchPoint(*session);
        if (!captured.ok()) return done(captured);
        session->Read(rest, done);
      });
}

// `what`: a mutation that the session is added to, or whether to capture a state at its end.
template <typename What>
void Complete(const std::shared_ptr<SessionCall>& session, What what,
              v1::CreateSessionResponse* response, const HandlerDone& done) {
  session->Complete(
      std::move(what),
      [session, response] {
        *response->mutable_session() = session->session();
        *response->mutable_usage() = session->usage();
        return response;
      },
      [session, done](const absl::Status& status) {
        if (!status.ok()) session->lease().Discard();
        session->Release();
        done(status);
      });
}

}  // namespace

void HandleCreateSession(ServiceContext* service, const CallPtr& call,
                         const v1::CreateSessionRequest* request,
                         v1::CreateSessionResponse* response, const HandlerDone& done) {
  auto session = std::make_shared<SessionCall>(service, call);
  const auto repeat = session->Claim(request->request_id(), response);
  if (!repeat.ok()) return done(repeat.status());
  if (*repeat) return done(absl::OkStatus());
  auto plan = MakePlan(*service, *call, *request);
  if (!plan.ok()) return done(plan.status());
  const absl::Status opened = session->OpenNew(plan->record);
  if (!opened.ok()) return done(opened);
  // A session takes no slot before it has something to keep there, and its base no second trip
  // through the library.
  const bool empty = request->from_case() == v1::CreateSessionRequest::FROM_NOT_SET;
  if (empty || !request->aux().empty()) {
    return Complete(session, std::move(plan->base), response, done);
  }
  const auto fail = [session, done](const absl::Status& status) {
    session->lease().Discard();
    session->Release();
    done(status);
  };
  session->Load([session, response, done, fail, branch = plan->branch,
                 unread = std::move(plan->unread)](const absl::Status& loaded) {
    if (!loaded.ok()) return fail(loaded);
    ReadHistory(session, branch, unread, [session, response, done, fail](const absl::Status& read) {
      if (!read.ok()) return fail(read);
      Complete(session, /*checkpoint=*/true, response, done);
    });
  });
}

}  // namespace anabranch
