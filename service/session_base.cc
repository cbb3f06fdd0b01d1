#include "service/session_base.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/state_points.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// The core is one of the states that are merged.
constexpr size_t kMaxAux = kMaxMergeInputs - 1;

// States that are part of what a session knows without its auxiliary states.
using Known = absl::flat_hash_set<std::string>;

absl::StatusOr<Known> KnownBy(StateStore& store, const std::string& tenant,
                              const std::vector<std::string>& ids) {
  Known known;
  for (const std::string& id : ids) {
    if (id.empty()) continue;
    ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state, ResolveState(store, tenant, id));
    ANABRANCH_RETURN_IF_ERROR(VisitPast(
        store, state, [&](const StateRecord& each) { return known.insert(each.id).second; }));
  }
  return known;
}

// Where the own part of an auxiliary state begins: the newest whole state that is known; empty:
// nothing is.
absl::StatusOr<std::string> OwnPart(StateStore& store, const StateRecord& state,
                                    const AuxState& aux, const Known& known) {
  if (known.contains(state.id)) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "ALREADY_KNOWN",
        absl::StrCat("aux: ", aux.name,
                     aux.name == state.id ? "" : absl::StrCat(" (", state.id, ")"),
                     " is part of what the session has read already, which goes on from it"),
        {{"state_id", state.id}});
  }
  std::string since;
  ANABRANCH_RETURN_IF_ERROR(VisitPast(store, state, [&](const StateRecord& each) {
    if (IsWhole(each) && known.contains(each.id)) since = each.id;
    return since.empty();
  }));
  return since;
}

absl::StatusOr<MergePlan> PlanMerge(const ServiceContext& service, const Call& call,
                                    const SessionBase& base, const std::string& head) {
  StateStore& store = *service.store;
  MergePlan plan;
  if (!base.core.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(const StateRecord core, ResolveState(store, call.tenant, base.core));
    ANABRANCH_RETURN_IF_ERROR(CheckModel(core, *service.model->model()));
    plan.inputs.push_back(core);
    plan.since.emplace_back();
    plan.options.weights.push_back(1);
  }
  ANABRANCH_ASSIGN_OR_RETURN(const Known known, KnownBy(store, call.tenant, {base.core, head}));
  bool shares = false;
  for (const AuxState& aux : base.aux) {
    ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                               ResolveState(store, call.tenant, aux.state_id));
    ANABRANCH_RETURN_IF_ERROR(CheckModel(state, *service.model->model()));
    ANABRANCH_ASSIGN_OR_RETURN(std::string since, OwnPart(store, state, aux, known));
    shares |= !since.empty();
    plan.inputs.push_back(state);
    plan.since.push_back(std::move(since));
    plan.options.weights.push_back(aux.weight);
  }
  // Without a core, what the auxiliary states share among themselves is counted once unless the
  // session has read a part of it.
  if (!base.core.empty() || !shares) {
    ANABRANCH_ASSIGN_OR_RETURN(plan.ancestor, NearestCommon(store, plan.inputs));
  }
  return plan;
}

// A state as it is, without a merge.
absl::StatusOr<BaseState> Existing(StateStore& store, const std::string& tenant, BaseState made,
                                   const std::string& id) {
  made.base.state = id;
  if (id.empty()) return made;
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state, ResolveState(store, tenant, id));
  made.base.position = state.token_count;
  return made;
}

}  // namespace

SessionBase BareCore(const StateRecord& state) {
  return {state.id, {}, state.id, state.token_count};
}

absl::Status AddAux(const ServiceContext& service, const Call& call, const std::string& field,
                    const google::protobuf::RepeatedPtrField<v1::Auxiliary>& added,
                    std::vector<AuxState>* aux) {
  for (const v1::Auxiliary& each : added) {
    if (!(each.weight() >= 0 && each.weight() <= kMaxMergeWeight)) {
      return InvalidField(
          absl::StrCat(field, ".weight"),
          absl::StrCat("is ", each.weight(), " for ", each.id(), ", must be above 0 and at most ",
                       kMaxMergeWeight, " (0 means 1)"));
    }
    ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                               ResolveState(*service.store, call.tenant, each.id()));
    ANABRANCH_RETURN_IF_ERROR(CheckModel(state, *service.model->model()));
    const AuxState fresh = {each.id(), state.id, each.weight() == 0 ? 1 : each.weight()};
    const auto same = std::find_if(aux->begin(), aux->end(),
                                   [&](const AuxState& old) { return old.name == fresh.name; });
    if (same == aux->end()) {
      aux->push_back(fresh);
    } else {
      *same = fresh;
    }
  }
  if (aux->size() > kMaxAux) {
    return InvalidField(field, absl::StrCat("makes ", aux->size(), " auxiliary states, at most ",
                                            kMaxAux, " can be merged into a core"));
  }
  absl::flat_hash_set<std::string> seen;
  for (const AuxState& each : *aux) {
    if (seen.insert(each.state_id).second) continue;
    return InvalidField(
        field, absl::StrCat("has ", each.state_id, " twice (", each.name, "): give it one weight"));
  }
  return absl::OkStatus();
}

absl::StatusOr<BaseState> MakeBase(const ServiceContext& service, const Call& call,
                                   const std::string& core, std::vector<AuxState> aux,
                                   const std::string& head, v1::Usage* usage) {
  BaseState made;
  made.base.core = core;
  made.base.aux = std::move(aux);
  if (made.base.aux.empty()) return Existing(*service.store, call.tenant, std::move(made), core);
  ANABRANCH_ASSIGN_OR_RETURN(const MergePlan plan, PlanMerge(service, call, made.base, head));
  const bool alone = plan.inputs.size() == 1 && plan.options.weights[0] == 1;
  if (alone && plan.since[0].empty()) {
    const std::string id = plan.inputs[0].id;
    return Existing(*service.store, call.tenant, std::move(made), id);
  }
  ANABRANCH_ASSIGN_OR_RETURN(made.merged, MergeStored(service, call, plan, usage));
  made.base.position = made.merged->image.header.token_count;
  return made;
}

}  // namespace anabranch
