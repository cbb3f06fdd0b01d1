#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "runtime/state_merge.h"
#include "service/error_info.h"
#include "service/library_handlers.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "service/state_loading.h"
#include "service/state_storing.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::StatusOr<MergeOptions> ParseOptions(const v1::MergeRequest& request) {
  if (request.inputs_size() < 2 || request.inputs_size() > kMaxMergeInputs) {
    return InvalidField("inputs", absl::StrCat("has ", request.inputs_size(),
                                               " entries, must have 2 to ", kMaxMergeInputs));
  }
  MergeOptions options;
  for (const v1::MergeInput& input : request.inputs()) {
    if (!(input.weight() >= 0 && input.weight() <= kMaxMergeWeight)) {
      return InvalidField("inputs.weight",
                          absl::StrCat("is ", input.weight(), ", must be 0 to ", kMaxMergeWeight));
    }
    options.weights.push_back(input.weight() == 0 ? 1 : input.weight());
  }
  switch (request.method()) {
    case v1::MERGE_METHOD_UNSPECIFIED:
    case v1::MERGE_METHOD_COMPOSE:
      break;
    case v1::MERGE_METHOD_ORDERED:
      options.method = MergeMethod::kOrdered;
      break;
    case v1::MERGE_METHOD_MEAN:
      options.method = MergeMethod::kMean;
      break;
    default:
      return InvalidField("method", "is none that this server knows");
  }
  switch (request.norm()) {
    case v1::MERGE_NORM_UNSPECIFIED:
      break;
    case v1::MERGE_NORM_SHARES:
      options.norm = MergeNorm::kWeights;
      break;
    case v1::MERGE_NORM_INPUTS:
      options.norm = MergeNorm::kInputs;
      break;
    default:
      return InvalidField("norm", "is none that this server knows");
  }
  return options;
}

// The state and its ancestors, newest first, up to a merge: a state does not go on from the inputs
// of a merge in the way that merging relies on.
absl::StatusOr<std::vector<std::string>> Ancestors(StateStore& store, const StateRecord& state) {
  std::vector<std::string> ids;
  ANABRANCH_RETURN_IF_ERROR(
      VisitLineage(store, state.tenant, state.id, [&](const StateRecord& each) {
        if (!each.thinned) ids.push_back(each.id);
        return each.operation != StateOperation::kMerge;
      }));
  return ids;
}

// The ancestor to count once, as the request says; empty: none.
absl::StatusOr<std::string> FindAncestor(StateStore& store, const v1::MergeRequest& request,
                                         const std::vector<StateRecord>& inputs) {
  if (request.ancestor_id() == "-") return std::string();
  std::vector<std::string> common;
  for (const StateRecord& input : inputs) {
    ANABRANCH_ASSIGN_OR_RETURN(std::vector<std::string> ids, Ancestors(store, input));
    if (&input == &inputs.front()) {
      common = std::move(ids);
      continue;
    }
    const absl::flat_hash_set<std::string> known(ids.begin(), ids.end());
    common.erase(std::remove_if(common.begin(), common.end(),
                                [&](const std::string& id) { return !known.contains(id); }),
                 common.end());
  }
  if (request.ancestor_id().empty()) return common.empty() ? "" : common.front();
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord wanted,
                             ResolveState(store, inputs.front().tenant, request.ancestor_id()));
  if (std::find(common.begin(), common.end(), wanted.id) != common.end()) return wanted.id;
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "NO_COMMON_ANCESTOR",
      absl::StrCat("ancestor_id: not all inputs go on from ", wanted.id,
                   common.empty() ? std::string("; they share no ancestor")
                                  : absl::StrCat("; they share ", common.front())));
}

// Everything that goes into one merge.
struct Material {
  std::vector<LoadedState> inputs;
  LoadedState ancestor;  // of no tokens if there is none
};

absl::StatusOr<Material> Load(const ServiceContext& service, const std::vector<StateRecord>& inputs,
                              const std::string& ancestor, v1::Usage* usage) {
  const Model& model = *service.model->model();
  Material material;
  const auto load = [&](const std::string& id) -> absl::StatusOr<LoadedState> {
    ANABRANCH_ASSIGN_OR_RETURN(LoadedState state,
                               LoadState(*service.store, model, inputs.front().tenant, id));
    ANABRANCH_RETURN_IF_ERROR(CheckState(state.image, model.state_layout(), model.fingerprint(),
                                         model.numerics_profile()));
    usage->set_state_bytes_loaded(usage->state_bytes_loaded() + state.bytes);
    return state;
  };
  for (const StateRecord& input : inputs) {
    ANABRANCH_ASSIGN_OR_RETURN(LoadedState state, load(input.id));
    material.inputs.push_back(std::move(state));
  }
  if (ancestor.empty()) return material;
  ANABRANCH_ASSIGN_OR_RETURN(material.ancestor, load(ancestor));
  return material;
}

std::vector<int32_t> MergedTokens(const Material& material) {
  std::vector<int32_t> tokens = material.ancestor.tokens;
  const size_t shared = tokens.size();
  for (const LoadedState& input : material.inputs) {
    tokens.insert(tokens.end(), input.tokens.begin() + shared, input.tokens.end());
  }
  return tokens;
}

// Part of the state's id: equal merges of equal inputs are one state.
std::string Parameters(const MergeOptions& options, const std::string& ancestor) {
  constexpr const char* kMethods[] = {"compose", "ordered", "mean"};
  constexpr const char* kNorms[] = {"none", "shares", "inputs"};
  return absl::StrCat("method=", kMethods[static_cast<int>(options.method)],
                      " norm=", kNorms[static_cast<int>(options.norm)],
                      " weights=", absl::StrJoin(options.weights, ","),
                      " ancestor=", ancestor.empty() ? "-" : ancestor);
}

absl::StatusOr<StateImage> Compute(const Model& model, const Material& material,
                                   const MergeOptions& options, v1::Usage* usage) {
  const absl::Time start = absl::Now();
  std::vector<const StateImage*> images;
  for (const LoadedState& input : material.inputs) images.push_back(&input.image);
  const bool has_ancestor = !material.ancestor.record.id.empty();
  auto merged = MergeStates(model.state_layout(), images,
                            has_ancestor ? &material.ancestor.image : nullptr, options);
  usage->set_compute_ms(absl::ToDoubleMilliseconds(absl::Now() - start));
  return merged;
}

// The inputs' records, in the request's order.
absl::StatusOr<std::vector<StateRecord>> Resolve(const ServiceContext& service, const Call& call,
                                                 const v1::MergeRequest& request) {
  std::vector<StateRecord> inputs;
  for (const v1::MergeInput& input : request.inputs()) {
    ANABRANCH_ASSIGN_OR_RETURN(StateRecord state,
                               ResolveState(*service.store, call.tenant, input.id()));
    ANABRANCH_RETURN_IF_ERROR(CheckModel(state, *service.model->model()));
    inputs.push_back(std::move(state));
  }
  return inputs;
}

absl::StatusOr<PutState> MakeState(const ServiceContext& service, const Call& call,
                                   const v1::MergeRequest& request, v1::MergeResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const MergeOptions options, ParseOptions(request));
  ANABRANCH_ASSIGN_OR_RETURN(const Labels labels, ParseLabels(request.labels()));
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<StateRecord> inputs,
                             Resolve(service, call, request));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string ancestor,
                             FindAncestor(*service.store, request, inputs));
  response->set_ancestor_id(ancestor);
  v1::Usage* usage = response->mutable_usage();
  const absl::Time start = absl::Now();
  ANABRANCH_ASSIGN_OR_RETURN(const Material material, Load(service, inputs, ancestor, usage));
  usage->set_restore_ms(absl::ToDoubleMilliseconds(absl::Now() - start));
  PutState put;
  put.record.tenant = call.tenant;
  put.record.operation = StateOperation::kMerge;
  put.record.operation_params = Parameters(options, ancestor);
  put.record.span_tokens = MergedTokens(material);
  const int64_t tokens = put.record.span_tokens.size();
  if (tokens > service.limits.max_context_tokens) {
    return LimitExceeded("inputs: context tokens", tokens, service.limits.max_context_tokens);
  }
  for (const StateRecord& input : inputs) put.record.parents.push_back(input.id);
  ANABRANCH_ASSIGN_OR_RETURN(StateImage merged,
                             Compute(*service.model->model(), material, options, usage));
  usage->set_state_bytes_stored(StageImage(std::move(merged), {}, &put));
  usage->set_tokens_reused(tokens);
  put.record.labels = labels;
  put.record.created = absl::Now();
  put.record.id = StateId(put.record);
  return put;
}

}  // namespace

absl::Status HandleMerge(const ServiceContext& service, const Call& call,
                         const v1::MergeRequest& request, v1::MergeResponse* response) {
  AnswerBook::Claim claim;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service.answers->Begin(call.tenant, request.request_id(), response, &claim));
  if (repeat) return absl::OkStatus();
  if (!request.ref().empty()) ANABRANCH_RETURN_IF_ERROR(CheckRefName("ref", request.ref()));
  ANABRANCH_ASSIGN_OR_RETURN(PutState put, MakeState(service, call, request, response));
  *response->mutable_state() = ToProto(put.record);
  const std::string id = put.record.id;
  Mutation mutation;
  mutation.operations.push_back(std::move(put));
  if (!request.ref().empty()) {
    mutation.operations.push_back(
        SetRef{call.tenant, request.ref(), id, ExpectedRefState(request.expected_ref_state_id())});
    *response->mutable_ref() = ToProto(RefRecord{call.tenant, request.ref(), id, absl::Now(), 0});
  }
  claim.StageAnswer(*response, &mutation);
  const absl::Status status = WriteError(service.store->CommitAndWait(std::move(mutation)));
  if (absl::IsAborted(status)) return WithReason(status, "REF_MISMATCH");
  ANABRANCH_RETURN_IF_ERROR(status);
  // With the etags, which the library gives.
  if (const auto state = service.store->GetState(call.tenant, id); state.ok()) {
    *response->mutable_state() = ToProto(*state);
  }
  return absl::OkStatus();
}

}  // namespace anabranch
