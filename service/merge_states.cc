#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "runtime/state_merge.h"
#include "service/computed_state.h"
#include "service/error_info.h"
#include "service/library_handlers.h"
#include "service/select_state.h"
#include "service/state_loading.h"
#include "service/state_points.h"

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
    case v1::MERGE_METHOD_SELECT:
      break;  // merges nothing
    default:
      return InvalidField("method", "is none that this server knows");
  }
  if (!request.query().empty() && request.method() != v1::MERGE_METHOD_SELECT) {
    return InvalidField("query", "is for the method select");
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

// The ancestor to count once, as the request says; empty: none.
absl::StatusOr<std::string> FindAncestor(StateStore& store, const v1::MergeRequest& request,
                                         const std::vector<StateRecord>& inputs) {
  if (request.ancestor_id() == "-") return std::string();
  ANABRANCH_ASSIGN_OR_RETURN(const std::string nearest, NearestCommon(store, inputs));
  if (request.ancestor_id().empty()) return nearest;
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord wanted,
                             ResolveState(store, inputs.front().tenant, request.ancestor_id()));
  // All go on from what the nearest one goes on from, and from nothing else together.
  bool shared = false;
  if (!nearest.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(const StateRecord from, ResolveState(store, wanted.tenant, nearest));
    ANABRANCH_RETURN_IF_ERROR(VisitPast(store, from, [&](const StateRecord& each) {
      shared = each.id == wanted.id;
      return !shared;
    }));
  }
  if (shared) return wanted.id;
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_COMMON_ANCESTOR",
                         absl::StrCat("ancestor_id: not all inputs go on from ", wanted.id,
                                      nearest.empty() ? std::string("; they share no ancestor")
                                                      : absl::StrCat("; they share ", nearest)));
}

// Everything that goes into one merge.
struct Material {
  std::vector<LoadedState> inputs;
  LoadedState ancestor;  // of no tokens if there is none
};

absl::StatusOr<Material> Load(const ServiceContext& service, const Call& call,
                              const std::vector<StateRecord>& inputs, const std::string& ancestor,
                              v1::Usage* usage) {
  Material material;
  const auto load = [&](const StateRecord& state) {
    return StateAt(service, call, state, state.token_count, usage);
  };
  for (const StateRecord& input : inputs) {
    ANABRANCH_ASSIGN_OR_RETURN(LoadedState state, load(input));
    state.record = input;
    material.inputs.push_back(std::move(state));
  }
  if (ancestor.empty()) return material;
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord record,
                             service.store->GetState(call.tenant, ancestor));
  ANABRANCH_ASSIGN_OR_RETURN(material.ancestor, load(record));
  material.ancestor.record = record;
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
  if (!merged.ok()) return merged;
  if (has_ancestor) images.push_back(&material.ancestor.image);
  merged->header.origin = FurthestOrigin(images);
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

// How many tokens' time the merged T covers, which is made as T is.
absl::StatusOr<int64_t> MergedElapsed(StateStore& store, const MergeOptions& options,
                                      const Material& material) {
  int64_t shared = 0, added = 0;
  if (!material.ancestor.record.id.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(shared, ElapsedTokens(store, material.ancestor.record));
  }
  double mean = 0, weights = 0;
  for (size_t k = 0; k < material.inputs.size(); ++k) {
    ANABRANCH_ASSIGN_OR_RETURN(const int64_t elapsed,
                               ElapsedTokens(store, material.inputs[k].record));
    added += elapsed - shared;
    mean += options.weights[k] * static_cast<double>(elapsed);
    weights += options.weights[k];
  }
  return options.method == MergeMethod::kMean ? std::llround(mean / weights) : shared + added;
}

absl::StatusOr<PutState> MakeState(const ServiceContext& service, const Call& call,
                                   const v1::MergeRequest& request, v1::MergeResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const MergeOptions options, ParseOptions(request));
  Computation computation;
  ANABRANCH_ASSIGN_OR_RETURN(computation.labels, ParseLabels(request.labels()));
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<StateRecord> inputs,
                             Resolve(service, call, request));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string ancestor,
                             FindAncestor(*service.store, request, inputs));
  response->set_ancestor_id(ancestor);
  v1::Usage* usage = response->mutable_usage();
  const absl::Time start = absl::Now();
  ANABRANCH_ASSIGN_OR_RETURN(const Material material, Load(service, call, inputs, ancestor, usage));
  usage->set_restore_ms(absl::ToDoubleMilliseconds(absl::Now() - start));
  computation.tokens = MergedTokens(material);
  const int64_t tokens = static_cast<int64_t>(computation.tokens.size());
  if (tokens > service.limits.max_context_tokens) {
    return LimitExceeded("inputs: context tokens", tokens, service.limits.max_context_tokens);
  }
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t elapsed,
                             MergedElapsed(*service.store, options, material));
  computation.params =
      absl::StrCat(Parameters(options, ancestor), ElapsedParameter(elapsed, tokens));
  for (const StateRecord& input : inputs) computation.parents.push_back(input.id);
  ANABRANCH_ASSIGN_OR_RETURN(StateImage merged,
                             Compute(*service.model->model(), material, options, usage));
  return StageComputed(service, call, std::move(computation), std::move(merged), usage);
}

// A selected state stays as it is.
absl::Status CheckSelect(const v1::MergeRequest& request) {
  constexpr const char* kWhy = "must be empty: select makes no new state";
  if (request.norm() != v1::MERGE_NORM_UNSPECIFIED) return InvalidField("norm", kWhy);
  if (!request.ancestor_id().empty()) return InvalidField("ancestor_id", kWhy);
  return request.labels().empty() ? absl::OkStatus() : InvalidField("labels", kWhy);
}

absl::StatusOr<StateRecord> Select(const ServiceContext& service, const Call& call,
                                   const v1::MergeRequest& request, v1::MergeResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const MergeOptions options, ParseOptions(request));
  ANABRANCH_RETURN_IF_ERROR(CheckSelect(request));
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<StateRecord> inputs, Resolve(service, call, request));
  const auto& weights = options.weights;
  size_t best = std::max_element(weights.begin(), weights.end()) - weights.begin();
  if (!request.query().empty()) {
    v1::Usage* usage = response->mutable_usage();
    ANABRANCH_ASSIGN_OR_RETURN(const Material material, Load(service, call, inputs, "", usage));
    ANABRANCH_ASSIGN_OR_RETURN(const std::vector<QueryScore> scores,
                               ScoreQuery(service, call, request.query(), material.inputs, usage));
    for (const QueryScore& score : scores) {
      v1::QueryScore* proto = response->add_query_scores();
      proto->set_logprob(score.logprob);
      proto->set_entropy(score.entropy);
    }
    best = BestOf(scores);
  }
  response->mutable_usage()->set_tokens_reused(inputs[best].token_count);
  return std::move(inputs[best]);
}

}  // namespace

absl::Status HandleMerge(const ServiceContext& service, const Call& call,
                         const v1::MergeRequest& request, v1::MergeResponse* response) {
  if (request.method() == v1::MERGE_METHOD_SELECT) {
    return AnswerWithStored(service, call, request, response, [&](v1::MergeResponse* answer) {
      return Select(service, call, request, answer);
    });
  }
  return AnswerWithComputed(service, call, request, response, [&](v1::MergeResponse* answer) {
    return MakeState(service, call, request, answer);
  });
}

}  // namespace anabranch
