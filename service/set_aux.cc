// SetAux: the same session on another base. With D what the session has read since its old base, as
// a state alone (the span from the old base to its end), the new end is D after the new base:
// S = P_D S_new + D, T = T_new + T_D. Exact in one layer; D was read knowing the old base.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "runtime/state_algebra.h"
#include "service/error_info.h"
#include "service/proto_conversion.h"
#include "service/session_base.h"
#include "service/session_call.h"
#include "service/session_handlers.h"
#include "service/state_points.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// One SetAux on its way.
struct Swap {
  ServiceContext* service;
  CallPtr call;
  std::shared_ptr<SessionCall> session;
  const v1::SetAuxRequest* request;
  v1::SetAuxResponse* response;
  SessionView view;  // of the session, when the call began
  std::vector<AuxState> aux;
};

// A state with all that computing with it takes; of no tokens: nothing read.
struct Point {
  StateRecord record;  // may be not stored yet; empty id: none
  StateImage image;
  std::vector<int32_t> tokens;
  int64_t elapsed = 0;

  const StateImage* ptr() const { return tokens.empty() ? nullptr : &image; }
};

absl::Status DropAux(const v1::SetAuxRequest& request, std::vector<AuxState>* aux) {
  for (const std::string& name : request.drop()) {
    const auto found = std::find_if(aux->begin(), aux->end(), [&](const AuxState& each) {
      return each.name == name || each.state_id == name;
    });
    if (found != aux->end()) {
      aux->erase(found);
      continue;
    }
    const std::string there = absl::StrJoin(
        *aux, ", ", [](std::string* out, const AuxState& each) { out->append(each.name); });
    return ErrorWithReason(absl::StatusCode::kNotFound, "AUX_NOT_FOUND",
                           absl::StrCat("drop: the session has no auxiliary state ", name,
                                        "; it has ", there.empty() ? "none" : there),
                           {{"field", "drop"}});
  }
  return absl::OkStatus();
}

absl::StatusOr<Point> Stored(const Swap& swap, const std::string& id) {
  Point point;
  if (id.empty()) return point;
  StateStore& store = *swap.service->store;
  ANABRANCH_ASSIGN_OR_RETURN(point.record, ResolveState(store, swap.call->tenant, id));
  ANABRANCH_ASSIGN_OR_RETURN(point.elapsed, ElapsedTokens(store, point.record));
  ANABRANCH_ASSIGN_OR_RETURN(
      LoadedState loaded, StateAt(*swap.service, *swap.call, point.record, point.record.token_count,
                                  &swap.call->usage));
  point.image = std::move(loaded.image);
  point.tokens = std::move(loaded.tokens);
  return point;
}

// Where the session stands: its head, or what the engine has read after it.
absl::StatusOr<Point> End(const Swap& swap) {
  SessionCall& session = *swap.session;
  const SessionRecord& record = swap.view.record;
  if (swap.view.token_count == record.head_position) return Stored(swap, record.head_state);
  Point point;
  StateStore& store = *swap.service->store;
  if (!record.head_state.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(const StateRecord head,
                               ResolveState(store, record.tenant, record.head_state));
    ANABRANCH_ASSIGN_OR_RETURN(point.elapsed, ElapsedTokens(store, head));
  }
  point.elapsed += swap.view.token_count - record.head_position;
  point.tokens = session.tokens();
  ANABRANCH_ASSIGN_OR_RETURN(point.image,
                             swap.service->engine->Capture(session.lease().sequence()));
  return point;
}

// The base that the session is to have, and its state if that has to be stored first.
absl::StatusOr<Point> NewBase(const Swap& swap, SessionBase* base, Mutation* mutation) {
  const SessionRecord& record = swap.view.record;
  v1::Usage* usage = &swap.call->usage;
  ANABRANCH_ASSIGN_OR_RETURN(BaseState made, MakeBase(*swap.service, *swap.call, record.base.core,
                                                      swap.aux, record.head_state, usage));
  *base = std::move(made.base);
  if (!made.merged.has_value()) return Stored(swap, base->state);
  Point point;
  point.image = made.merged->image;
  point.tokens = made.merged->computation.tokens;
  point.elapsed = made.merged->elapsed;
  ANABRANCH_ASSIGN_OR_RETURN(
      PutState put, StageComputed(*swap.service, *swap.call, std::move(made.merged->computation),
                                  std::move(made.merged->image), usage));
  point.record = put.record;
  base->state = put.record.id;
  mutation->operations.push_back(std::move(put));
  return point;
}

// What the session has read since its old base, after the new one.
absl::StatusOr<StateImage> Combine(const StateLayout& layout, const Point& old_base,
                                   const Point& new_base, const Point& end) {
  ANABRANCH_ASSIGN_OR_RETURN(StateImage own, SpanState(layout, old_base.ptr(), end.image));
  if (new_base.ptr() != nullptr) {
    MergeOptions ordered;
    ordered.method = MergeMethod::kOrdered;
    ANABRANCH_ASSIGN_OR_RETURN(own, MergeStates(layout, {new_base.ptr(), &own}, nullptr, ordered));
  }
  own.header.origin = FurthestOrigin({old_base.ptr(), new_base.ptr(), &end.image});
  return own;
}

absl::StatusOr<PutState> MakeEnd(const Swap& swap, const Point& new_base, const Point& end) {
  const SessionRecord& record = swap.view.record;
  const int64_t since = record.base.position;
  Point old_base;
  ANABRANCH_ASSIGN_OR_RETURN(old_base, Stored(swap, record.base.state));
  Computation computation;
  computation.operation = StateOperation::kSwap;
  computation.tokens = new_base.tokens;
  computation.tokens.insert(computation.tokens.end(), end.tokens.begin() + since, end.tokens.end());
  const int64_t tokens = static_cast<int64_t>(computation.tokens.size());
  const int64_t limit = swap.service->limits.max_context_tokens;
  if (tokens > limit) return LimitExceeded("add: context tokens", tokens, limit);
  const int64_t elapsed = new_base.elapsed + end.elapsed - old_base.elapsed;
  computation.params = absl::StrCat("begin=", new_base.tokens.size(), " since=", since,
                                    ElapsedParameter(elapsed, tokens));
  if (!new_base.record.id.empty()) computation.parents.push_back(new_base.record.id);
  computation.parents.push_back(end.record.id);
  const absl::Time start = absl::Now();
  ANABRANCH_ASSIGN_OR_RETURN(StateImage image, Combine(swap.service->model->model()->state_layout(),
                                                       old_base, new_base, end));
  v1::Usage* usage = &swap.call->usage;
  usage->set_compute_ms(usage->compute_ms() + absl::ToDoubleMilliseconds(absl::Now() - start));
  return StageComputed(*swap.service, *swap.call, std::move(computation), std::move(image), usage);
}

// Everything that changes, in one mutation; the session's new head in `head`.
absl::Status Stage(Swap& swap, Mutation* mutation, StateRecord* head) {
  SessionRecord& record = swap.view.record;
  ANABRANCH_ASSIGN_OR_RETURN(Point end, End(swap));
  SessionBase base;
  ANABRANCH_ASSIGN_OR_RETURN(const Point new_base, NewBase(swap, &base, mutation));
  *head = new_base.record;
  // The sequence in the slot stands on the old base: the next use starts from the library.
  swap.session->lease().Discard();
  if (swap.view.token_count > record.base.position) {
    ANABRANCH_ASSIGN_OR_RETURN(const auto captured, swap.session->StageCapture({}, mutation));
    if (captured.has_value()) end.record = *captured;
    ANABRANCH_ASSIGN_OR_RETURN(PutState put, MakeEnd(swap, new_base, end));
    *head = put.record;
    mutation->operations.push_back(std::move(put));
  }
  record.base = std::move(base);
  record.head_state = head->id;
  record.head_position = head->token_count;
  record.thin_from = head->token_count + 1;
  record.updated = absl::Now();
  swap.view.token_count = swap.view.durable_token_count = head->token_count;
  // The log is replaced with the session: a log only grows at its end.
  mutation->operations.push_back(DeleteSession{record.tenant, record.id});
  mutation->operations.push_back(PutSession{record});
  return absl::OkStatus();
}

void FillAnswer(const Swap& swap, const StateRecord& head) {
  *swap.response->mutable_session() = ToProto(swap.view);
  if (!head.id.empty()) *swap.response->mutable_state() = ToProto(head);
  v1::Usage& usage = swap.call->usage;
  usage.set_tokens_reused(swap.view.token_count - usage.tokens_replayed());
  *swap.response->mutable_usage() = usage;
}

absl::Status Write(Swap& swap) {
  ANABRANCH_RETURN_IF_ERROR(swap.call->Interrupted());
  Mutation mutation;
  StateRecord head;
  ANABRANCH_RETURN_IF_ERROR(Stage(swap, &mutation, &head));
  FillAnswer(swap, head);
  swap.session->StageAnswer(*swap.response, &mutation);
  ANABRANCH_RETURN_IF_ERROR(WriteError(swap.service->store->CommitAndWait(std::move(mutation))));
  // With the etag, which the library gives.
  const auto stored = swap.service->store->GetState(swap.call->tenant, head.id);
  if (stored.ok()) *swap.response->mutable_state() = ToProto(*stored);
  return absl::OkStatus();
}

// True: nothing changes, and the answer is given.
absl::StatusOr<bool> Begin(Swap& swap) {
  const v1::SetAuxRequest& request = *swap.request;
  ANABRANCH_ASSIGN_OR_RETURN(const bool repeat,
                             swap.session->Claim(request.request_id(), swap.response));
  if (repeat) return true;
  ANABRANCH_RETURN_IF_ERROR(
      swap.session->Open(request.session_id(), request.expected_token_count()));
  swap.view = swap.session->lease().journal().view();
  const SessionRecord& record = swap.view.record;
  if (!request.replace()) swap.aux = record.base.aux;
  ANABRANCH_RETURN_IF_ERROR(DropAux(request, &swap.aux));
  ANABRANCH_RETURN_IF_ERROR(AddAux(*swap.service, *swap.call, "add", request.add(), &swap.aux));
  if (swap.aux != record.base.aux) return false;
  StateRecord head;
  if (!record.head_state.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(head,
                               swap.service->store->GetState(swap.call->tenant, record.head_state));
  }
  FillAnswer(swap, head);
  return true;
}

}  // namespace

void HandleSetAux(ServiceContext* service, const CallPtr& call, const v1::SetAuxRequest* request,
                  v1::SetAuxResponse* response, const HandlerDone& done) {
  auto swap = std::make_shared<Swap>();
  swap->service = service;
  swap->call = call;
  swap->session = std::make_shared<SessionCall>(service, call);
  swap->request = request;
  swap->response = response;
  const auto end = [swap, done](const absl::Status& status) {
    swap->session->Release();
    done(status);
  };
  const auto ended = Begin(*swap);
  if (!ended.ok() || *ended) return end(ended.status());
  // With a state at its end, a session need not be in a slot.
  if (swap->view.token_count == swap->view.record.head_position) return end(Write(*swap));
  swap->session->Load(
      [swap, end](const absl::Status& loaded) { end(loaded.ok() ? Write(*swap) : loaded); });
}

}  // namespace anabranch
