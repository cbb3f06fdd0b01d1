#include "service/state_points.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/notification.h"
#include "service/error_info.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

int64_t NumberOf(const StateRecord& state, absl::string_view name, int64_t otherwise) {
  int64_t number = 0;
  const std::string text = ParameterOf(state, name);
  return absl::SimpleAtoi(text.substr(0, text.find("..")), &number) ? number : otherwise;
}

// Shared with the engine's thread, which may outlive the caller's interest.
struct Outcome {
  absl::Notification done;
  absl::Status status;
  WorkStats stats;
};

absl::Status ReadAndWait(const ServiceContext& service, const Call& call,
                         const SequencePtr& sequence, std::vector<int32_t> tokens,
                         v1::Usage* usage) {
  auto outcome = std::make_shared<Outcome>();
  ReadWork work;
  work.sequence = sequence;
  work.tokens = std::move(tokens);
  work.options = call.work_options();
  work.on_done = [outcome](absl::Status status, const WorkStats& stats) {
    outcome->status = std::move(status);
    outcome->stats = stats;
    outcome->done.Notify();
  };
  ANABRANCH_RETURN_IF_ERROR(service.engine->Submit(std::move(work)));
  outcome->done.WaitForNotification();
  usage->set_tokens_replayed(usage->tokens_replayed() + outcome->stats.tokens_read);
  usage->set_queue_ms(usage->queue_ms() + absl::ToDoubleMilliseconds(outcome->stats.queue_time));
  usage->set_compute_ms(usage->compute_ms() +
                        absl::ToDoubleMilliseconds(outcome->stats.compute_time));
  const absl::Status why = call.Interrupted();
  return why.ok() ? outcome->status : why;
}

absl::StatusOr<LoadedState> LoadChecked(const ServiceContext& service, const StateRecord& state) {
  const Model& model = *service.model->model();
  ANABRANCH_ASSIGN_OR_RETURN(LoadedState loaded,
                             LoadState(*service.store, model, state.tenant, state.id));
  ANABRANCH_RETURN_IF_ERROR(CheckState(loaded.image, model.state_layout(), model.fingerprint(),
                                       model.numerics_profile()));
  service.heat->Touch(state.id);
  return loaded;
}

}  // namespace

absl::Status Replay(const ServiceContext& service, const Call& call, std::vector<int32_t> tokens,
                    LoadedState& loaded, v1::Usage* usage) {
  ANABRANCH_RETURN_IF_ERROR(service.sessions->MakeRoom());
  service.sessions->MakePages(static_cast<int64_t>(tokens.size()));
  auto sequence = loaded.tokens.empty() ? service.engine->NewSequence()
                                        : service.engine->Restore(loaded.image, loaded.tokens);
  if (absl::IsResourceExhausted(sequence.status())) {
    return WithReason(sequence.status(), "ENGINE_FULL");
  }
  ANABRANCH_RETURN_IF_ERROR(sequence.status());
  std::vector<int32_t> unread(tokens.begin() + static_cast<int64_t>(loaded.tokens.size()),
                              tokens.end());
  ANABRANCH_RETURN_IF_ERROR(ReadAndWait(service, call, *sequence, std::move(unread), usage));
  ANABRANCH_ASSIGN_OR_RETURN(loaded.image, service.engine->Capture(*sequence));
  loaded.tokens = std::move(tokens);
  return absl::OkStatus();
}

int64_t PastLimit(const StateRecord& state) {
  switch (state.operation) {
    case StateOperation::kAppend:
    case StateOperation::kDecay:
      return std::numeric_limits<int64_t>::max();
    case StateOperation::kForget:
      return NumberOf(state, "span", 0);
    case StateOperation::kSwap:
      return NumberOf(state, "begin", 0);
    case StateOperation::kMerge:
    case StateOperation::kSpan:
      return 0;
  }
  return 0;
}

absl::Status VisitPast(StateStore& store, const StateRecord& state,
                       absl::FunctionRef<bool(const StateRecord&)> visit) {
  int64_t limit = std::numeric_limits<int64_t>::max();
  return VisitLineage(store, state.tenant, state.id, [&](const StateRecord& each) {
    if (each.token_count <= limit && !visit(each)) return false;
    limit = std::min(limit, PastLimit(each));
    return limit > 0;
  });
}

absl::StatusOr<std::string> NearestCommon(StateStore& store,
                                          const std::vector<StateRecord>& states) {
  std::vector<std::string> common;
  for (const StateRecord& state : states) {
    std::vector<std::string> past;
    ANABRANCH_RETURN_IF_ERROR(VisitPast(store, state, [&](const StateRecord& each) {
      if (!each.thinned) past.push_back(each.id);
      return true;
    }));
    if (&state == &states.front()) {
      common = std::move(past);
      continue;
    }
    const absl::flat_hash_set<std::string> known(past.begin(), past.end());
    common.erase(std::remove_if(common.begin(), common.end(),
                                [&](const std::string& id) { return !known.contains(id); }),
                 common.end());
  }
  return common.empty() ? std::string() : common.front();
}

absl::StatusOr<StateRecord> FindPoint(StateStore& store, const StateRecord& state,
                                      int64_t position) {
  return FindPoint(store, state, position, PrefixKind::kAny);
}

absl::StatusOr<StateRecord> FindPoint(StateStore& store, const StateRecord& state, int64_t position,
                                      PrefixKind kind) {
  const auto serves = [kind](const StateRecord& each) {
    if (!IsWhole(each)) return false;
    return kind == PrefixKind::kAny || IsExact(each) || each.operation != StateOperation::kAppend;
  };
  StateRecord found;
  if (position == 0) return found;
  absl::Status refused;
  ANABRANCH_RETURN_IF_ERROR(VisitPast(store, state, [&](const StateRecord& each) {
    if (each.token_count <= position && serves(each)) {
      found = each;
      return false;
    }
    if (each.token_count <= position || position <= PastLimit(each)) return true;
    refused = ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "NO_SUCH_POINT",
        absl::StrCat("token ", position, " lies inside ", each.id, ", which was computed (",
                     each.operation_params, "): it has no points between ", PastLimit(each),
                     " and ", each.token_count, " tokens. Take one of these, or go on from ",
                     "the state that it was made of, ", each.parents.front()));
    return false;
  }));
  ANABRANCH_RETURN_IF_ERROR(refused);
  return found;
}

absl::StatusOr<LoadedState> ReadAgain(const ServiceContext& service, const Call& call,
                                      const StateRecord& state, int64_t position, PrefixKind kind,
                                      v1::Usage* usage) {
  LoadedState loaded;
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord base,
                             FindPoint(*service.store, state, position, kind));
  if (!base.id.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(loaded, LoadChecked(service, base));
    usage->set_state_bytes_loaded(usage->state_bytes_loaded() + loaded.bytes);
    if (base.token_count == position) return loaded;
  }
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<int32_t> tokens,
                             service.store->GetTokens(state.tenant, state.id));
  tokens.resize(position);
  ANABRANCH_RETURN_IF_ERROR(Replay(service, call, std::move(tokens), loaded, usage));
  return loaded;
}

absl::StatusOr<std::vector<LoadedState>> StatesAtEnds(const ServiceContext& service,
                                                      const Call& call,
                                                      absl::Span<const StateRecord> states,
                                                      v1::Usage* usage) {
  std::vector<absl::StatusOr<LoadedState>> at(states.size(), absl::UnknownError(""));
  uint64_t bytes = 0;
  for (const StateRecord& state : states) bytes += state.payload_bytes;
  ForEachOnHost(bytes, states.size(), [&](size_t i) {
    if (IsWhole(states[i]) && states[i].token_count > 0) at[i] = LoadChecked(service, states[i]);
  });
  std::vector<LoadedState> loaded;
  for (size_t i = 0; i < states.size(); ++i) {
    if (at[i].ok()) {
      usage->set_state_bytes_loaded(usage->state_bytes_loaded() + at[i]->bytes);
    } else {
      // What has no content, or lost it just now, has to be read again; damage is found again.
      ANABRANCH_ASSIGN_OR_RETURN(const StateRecord now,
                                 service.store->GetState(states[i].tenant, states[i].id));
      at[i] = StateAt(service, call, now, now.token_count, usage);
      ANABRANCH_RETURN_IF_ERROR(at[i].status());
    }
    loaded.push_back(*std::move(at[i]));
  }
  return loaded;
}

absl::StatusOr<LoadedState> StateAt(const ServiceContext& service, const Call& call,
                                    const StateRecord& state, int64_t position, v1::Usage* usage) {
  if (position == 0) return LoadedState();
  const bool named = position == state.token_count && IsWhole(state);
  return ReadAgain(service, call, state, position,
                   named ? PrefixKind::kAny : service.storing.BasesFor({}), usage);
}

absl::StatusOr<int64_t> ElapsedTokens(StateStore& store, const StateRecord& state) {
  int64_t elapsed = state.token_count;
  ANABRANCH_RETURN_IF_ERROR(
      VisitLineage(store, state.tenant, state.id, [&](const StateRecord& each) {
        if (each.operation == StateOperation::kAppend) return true;
        elapsed += NumberOf(each, "elapsed", each.token_count) - each.token_count;
        return false;
      }));
  return elapsed;
}

std::string ParameterOf(const StateRecord& state, absl::string_view name) {
  for (absl::string_view word : absl::StrSplit(state.operation_params, ' ')) {
    if (absl::ConsumePrefix(&word, name) && absl::ConsumePrefix(&word, "=")) {
      return std::string(word);
    }
  }
  return "";
}

std::string ElapsedParameter(int64_t elapsed, int64_t token_count) {
  return elapsed == token_count ? "" : absl::StrCat(" elapsed=", elapsed);
}

}  // namespace anabranch
