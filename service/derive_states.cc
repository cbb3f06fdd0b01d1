#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/state_algebra.h"
#include "service/computed_state.h"
#include "service/library_handlers.h"
#include "service/state_points.h"

namespace anabranch {
namespace {

// What every request here starts with.
struct Subject {
  StateRecord state;
  Labels labels;
};

template <typename Request>
absl::StatusOr<Subject> Resolve(const ServiceContext& service, const Call& call,
                                const Request& request) {
  Subject subject;
  ANABRANCH_ASSIGN_OR_RETURN(subject.labels, ParseLabels(request.labels()));
  ANABRANCH_ASSIGN_OR_RETURN(subject.state,
                             ResolveState(*service.store, call.tenant, request.id()));
  ANABRANCH_RETURN_IF_ERROR(CheckModel(subject.state, *service.model->model()));
  return subject;
}

// Where a state that `state` goes on from ends.
absl::StatusOr<int64_t> PositionOf(StateStore& store, const StateRecord& state,
                                   absl::string_view field, const std::string& id) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord point, ResolveState(store, state.tenant, id));
  bool found = false;
  ANABRANCH_RETURN_IF_ERROR(VisitPast(store, state, [&](const StateRecord& each) {
    found = each.id == point.id;
    return !found;
  }));
  if (found) return point.token_count;
  ANABRANCH_ASSIGN_OR_RETURN(const std::string common, NearestCommon(store, {state, point}));
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NOT_AN_ANCESTOR",
                         absl::StrCat(field, ": ", state.id, " does not go on from ", point.id,
                                      common.empty() ? std::string("; they share no ancestor")
                                                     : "; both go on from " + common),
                         {{"field", std::string(field)}});
}

struct Bounds {
  int64_t begin = 0, end = 0;
};

absl::StatusOr<Bounds> ParseSpan(StateStore& store, const StateRecord& state,
                                 const v1::TokenSpan& span) {
  Bounds bounds{span.begin(), span.has_end() ? span.end() : state.token_count};
  if (span.has_begin_id()) {
    ANABRANCH_ASSIGN_OR_RETURN(bounds.begin,
                               PositionOf(store, state, "span.begin_id", span.begin_id()));
  }
  if (span.has_end_id()) {
    ANABRANCH_ASSIGN_OR_RETURN(bounds.end, PositionOf(store, state, "span.end_id", span.end_id()));
  }
  if (bounds.begin < 0 || bounds.begin >= bounds.end || bounds.end > state.token_count) {
    return InvalidField("span", absl::StrCat("is ", bounds.begin, "..", bounds.end,
                                             ", must hold tokens of 0..", state.token_count));
  }
  return bounds;
}

const StateImage* ImageOf(const LoadedState& state) {
  return state.tokens.empty() ? nullptr : &state.image;
}

// The time covered at a point of a context whose end covers `elapsed`, when only the end is known:
// all points of one past differ by their tokens and what has passed between them.
absl::StatusOr<int64_t> ElapsedAt(StateStore& store, const StateRecord& state, int64_t position) {
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord base, FindPoint(store, state, position));
  if (base.id.empty()) return position;
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t elapsed, ElapsedTokens(store, base));
  return elapsed + position - base.token_count;
}

absl::StatusOr<PutState> MakeSpan(const ServiceContext& service, const Call& call,
                                  const v1::SpanRequest& request, v1::ComputedState* response) {
  ANABRANCH_ASSIGN_OR_RETURN(Subject subject, Resolve(service, call, request));
  StateStore& store = *service.store;
  ANABRANCH_ASSIGN_OR_RETURN(const Bounds span, ParseSpan(store, subject.state, request.span()));
  response->set_begin(span.begin);
  response->set_end(span.end);
  v1::Usage* usage = response->mutable_usage();
  ANABRANCH_ASSIGN_OR_RETURN(const LoadedState begin,
                             StateAt(service, call, subject.state, span.begin, usage));
  ANABRANCH_ASSIGN_OR_RETURN(const LoadedState end,
                             StateAt(service, call, subject.state, span.end, usage));
  ANABRANCH_ASSIGN_OR_RETURN(StateImage image, SpanState(service.model->model()->state_layout(),
                                                         ImageOf(begin), end.image));
  image.header.origin = FurthestOrigin({ImageOf(begin), &end.image});
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t before, ElapsedAt(store, subject.state, span.begin));
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t after, ElapsedAt(store, subject.state, span.end));
  Computation computation;
  computation.operation = StateOperation::kSpan;
  computation.params = absl::StrCat("span=", span.begin, "..", span.end,
                                    ElapsedParameter(after - before, span.end - span.begin));
  computation.parents = {subject.state.id};
  computation.tokens.assign(end.tokens.begin() + span.begin, end.tokens.end());
  computation.labels = std::move(subject.labels);
  return StageComputed(service, call, std::move(computation), std::move(image), usage);
}

absl::StatusOr<PutState> MakeForget(const ServiceContext& service, const Call& call,
                                    const v1::SpanRequest& request, v1::ComputedState* response) {
  ANABRANCH_ASSIGN_OR_RETURN(Subject subject, Resolve(service, call, request));
  StateStore& store = *service.store;
  const StateRecord& state = subject.state;
  ANABRANCH_ASSIGN_OR_RETURN(const Bounds span, ParseSpan(store, state, request.span()));
  if (span.begin == 0 && span.end == state.token_count) {
    return InvalidField("span", "is all that the state has read: nothing would be left");
  }
  response->set_begin(span.begin);
  response->set_end(span.end);
  v1::Usage* usage = response->mutable_usage();
  ANABRANCH_ASSIGN_OR_RETURN(const LoadedState begin,
                             StateAt(service, call, state, span.begin, usage));
  ANABRANCH_ASSIGN_OR_RETURN(const LoadedState cut, StateAt(service, call, state, span.end, usage));
  ANABRANCH_ASSIGN_OR_RETURN(const LoadedState end,
                             StateAt(service, call, state, state.token_count, usage));
  ANABRANCH_ASSIGN_OR_RETURN(StateImage image, ForgetSpan(service.model->model()->state_layout(),
                                                          ImageOf(begin), cut.image, end.image));
  image.header.origin = FurthestOrigin({ImageOf(begin), &cut.image, &end.image});
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t elapsed, ElapsedTokens(store, state));
  Computation computation;
  computation.operation = StateOperation::kForget;
  computation.params = absl::StrCat("span=", span.begin, "..", span.end,
                                    ElapsedParameter(elapsed, image.header.token_count));
  computation.parents = {state.id};
  computation.tokens = end.tokens;
  computation.tokens.erase(computation.tokens.begin() + span.begin,
                           computation.tokens.begin() + span.end);
  computation.labels = std::move(subject.labels);
  return StageComputed(service, call, std::move(computation), std::move(image), usage);
}

absl::StatusOr<PutState> MakeDecay(const ServiceContext& service, const Call& call,
                                   const v1::DecayRequest& request, v1::ComputedState* response) {
  if (request.tokens() <= 0 || request.tokens() > kMaxDecayTokens) {
    return InvalidField("tokens",
                        absl::StrCat("is ", request.tokens(), ", must be 1 to ", kMaxDecayTokens));
  }
  ANABRANCH_ASSIGN_OR_RETURN(Subject subject, Resolve(service, call, request));
  const StateRecord& state = subject.state;
  response->set_end(state.token_count);
  v1::Usage* usage = response->mutable_usage();
  ANABRANCH_ASSIGN_OR_RETURN(const LoadedState loaded,
                             StateAt(service, call, state, state.token_count, usage));
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t elapsed, ElapsedTokens(*service.store, state));
  const double ratio = static_cast<double>(request.tokens()) / static_cast<double>(elapsed);
  ANABRANCH_ASSIGN_OR_RETURN(
      StateImage image, DecayState(service.model->model()->state_layout(), loaded.image, ratio));
  Computation computation;
  computation.operation = StateOperation::kDecay;
  computation.params = absl::StrCat(
      "tokens=", request.tokens(), ElapsedParameter(elapsed + request.tokens(), state.token_count));
  computation.parents = {state.id};
  computation.tokens = loaded.tokens;
  computation.labels = std::move(subject.labels);
  return StageComputed(service, call, std::move(computation), std::move(image), usage);
}

}  // namespace

absl::Status HandleExtractSpan(const ServiceContext& service, const Call& call,
                               const v1::SpanRequest& request, v1::ComputedState* response) {
  return AnswerWithComputed(service, call, request, response, [&](v1::ComputedState* answer) {
    return MakeSpan(service, call, request, answer);
  });
}

absl::Status HandleForget(const ServiceContext& service, const Call& call,
                          const v1::SpanRequest& request, v1::ComputedState* response) {
  return AnswerWithComputed(service, call, request, response, [&](v1::ComputedState* answer) {
    return MakeForget(service, call, request, answer);
  });
}

absl::Status HandleDecay(const ServiceContext& service, const Call& call,
                         const v1::DecayRequest& request, v1::ComputedState* response) {
  return AnswerWithComputed(service, call, request, response, [&](v1::ComputedState* answer) {
    return MakeDecay(service, call, request, answer);
  });
}

}  // namespace anabranch
