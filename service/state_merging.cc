#include "service/state_merging.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "runtime/state_algebra.h"
#include "service/state_loading.h"
#include "service/state_points.h"

namespace anabranch {
namespace {

// A state that takes part, with how many tokens' time its T covers.
struct Part {
  LoadedState state;
  int64_t elapsed = 0;

  const StateImage* image() const { return state.tokens.empty() ? nullptr : &state.image; }
  int64_t token_count() const { return static_cast<int64_t>(state.tokens.size()); }
};

// Everything that goes into one merge.
struct Material {
  std::vector<Part> inputs;
  Part ancestor;  // of no tokens if there is none
};

absl::StatusOr<std::vector<Part>> LoadParts(const ServiceContext& service, const Call& call,
                                            absl::Span<const StateRecord> records,
                                            v1::Usage* usage) {
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<LoadedState> states,
                             StatesAtEnds(service, call, records, usage));
  std::vector<Part> parts(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    parts[i].state = std::move(states[i]);
    ANABRANCH_ASSIGN_OR_RETURN(parts[i].elapsed, ElapsedTokens(*service.store, records[i]));
  }
  return parts;
}

absl::StatusOr<Part> LoadPart(const ServiceContext& service, const Call& call,
                              const std::string& id, v1::Usage* usage) {
  if (id.empty()) return Part();
  ANABRANCH_ASSIGN_OR_RETURN(const StateRecord record, service.store->GetState(call.tenant, id));
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<Part> parts, LoadParts(service, call, {record}, usage));
  return std::move(parts.front());
}

// The input as if it had read its own part, which begins at `since`, right after the ancestor.
absl::Status Rebase(const StateLayout& layout, const Part& ancestor, const Part& since,
                    Part& input) {
  ANABRANCH_ASSIGN_OR_RETURN(StateImage own, SpanState(layout, since.image(), input.state.image));
  const StateOrigin origin = FurthestOrigin({since.image(), &input.state.image, ancestor.image()});
  if (ancestor.image() != nullptr) {
    MergeOptions ordered;
    ordered.method = MergeMethod::kOrdered;
    ANABRANCH_ASSIGN_OR_RETURN(own,
                               MergeStates(layout, {ancestor.image(), &own}, nullptr, ordered));
  }
  input.state.image = std::move(own);
  input.state.image.header.origin = origin;
  std::vector<int32_t> tokens = ancestor.state.tokens;
  tokens.insert(tokens.end(), input.state.tokens.begin() + since.token_count(),
                input.state.tokens.end());
  input.state.tokens = std::move(tokens);
  input.elapsed += ancestor.elapsed - since.elapsed;
  return absl::OkStatus();
}

bool IsRebased(const MergePlan& plan, size_t input) {
  return !plan.since.empty() && !plan.since[input].empty() && plan.since[input] != plan.ancestor;
}

absl::StatusOr<Material> Load(const ServiceContext& service, const Call& call,
                              const MergePlan& plan, v1::Usage* usage) {
  Material material;
  ANABRANCH_ASSIGN_OR_RETURN(material.ancestor, LoadPart(service, call, plan.ancestor, usage));
  ANABRANCH_ASSIGN_OR_RETURN(material.inputs, LoadParts(service, call, plan.inputs, usage));
  for (size_t k = 0; k < plan.inputs.size(); ++k) {
    if (!IsRebased(plan, k)) continue;
    ANABRANCH_ASSIGN_OR_RETURN(const Part since, LoadPart(service, call, plan.since[k], usage));
    ANABRANCH_RETURN_IF_ERROR(Rebase(service.model->model()->state_layout(), material.ancestor,
                                     since, material.inputs[k]));
  }
  return material;
}

std::vector<int32_t> MergedTokens(const Material& material) {
  std::vector<int32_t> tokens = material.ancestor.state.tokens;
  const int64_t shared = material.ancestor.token_count();
  for (const Part& input : material.inputs) {
    tokens.insert(tokens.end(), input.state.tokens.begin() + shared, input.state.tokens.end());
  }
  return tokens;
}

// How many tokens' time the merged T covers, which is made as T is.
int64_t MergedElapsed(const MergeOptions& options, const Material& material) {
  int64_t total = material.ancestor.elapsed;
  double mean = 0, weights = 0;
  for (size_t k = 0; k < material.inputs.size(); ++k) {
    const int64_t elapsed = material.inputs[k].elapsed;
    total += elapsed - material.ancestor.elapsed;
    mean += options.weights[k] * static_cast<double>(elapsed);
    weights += options.weights[k];
  }
  return options.method == MergeMethod::kMean ? std::llround(mean / weights) : total;
}

// Part of the state's id: equal merges of equal inputs are one state.
std::string Parameters(const MergePlan& plan) {
  constexpr const char* kMethods[] = {"compose", "ordered", "mean"};
  constexpr const char* kNorms[] = {"none", "shares", "inputs"};
  const auto name = [](const std::string& id) { return id.empty() ? std::string("-") : id; };
  std::string text = absl::StrCat("method=", kMethods[static_cast<int>(plan.options.method)],
                                  " norm=", kNorms[static_cast<int>(plan.options.norm)],
                                  " weights=", absl::StrJoin(plan.options.weights, ","),
                                  " ancestor=", name(plan.ancestor));
  std::vector<std::string> since;
  bool rebased = false;
  for (size_t k = 0; k < plan.inputs.size(); ++k) {
    rebased |= IsRebased(plan, k);
    since.push_back(name(IsRebased(plan, k) ? plan.since[k] : plan.ancestor));
  }
  if (rebased) absl::StrAppend(&text, " since=", absl::StrJoin(since, ","));
  return text;
}

}  // namespace

absl::StatusOr<MergedState> MergeStored(const ServiceContext& service, const Call& call,
                                        const MergePlan& plan, v1::Usage* usage) {
  const absl::Time start = absl::Now();
  ANABRANCH_ASSIGN_OR_RETURN(const Material material, Load(service, call, plan, usage));
  const absl::Time loaded = absl::Now();
  usage->set_restore_ms(usage->restore_ms() + absl::ToDoubleMilliseconds(loaded - start));
  MergedState merged;
  Computation& computation = merged.computation;
  computation.tokens = MergedTokens(material);
  const int64_t tokens = static_cast<int64_t>(computation.tokens.size());
  if (tokens > service.limits.max_context_tokens) {
    return LimitExceeded("inputs: context tokens", tokens, service.limits.max_context_tokens);
  }
  merged.elapsed = MergedElapsed(plan.options, material);
  computation.params = absl::StrCat(Parameters(plan), ElapsedParameter(merged.elapsed, tokens));
  std::vector<const StateImage*> images;
  for (size_t k = 0; k < plan.inputs.size(); ++k) {
    computation.parents.push_back(plan.inputs[k].id);
    images.push_back(&material.inputs[k].state.image);
  }
  ANABRANCH_ASSIGN_OR_RETURN(merged.image,
                             MergeStates(service.model->model()->state_layout(), images,
                                         material.ancestor.image(), plan.options));
  images.push_back(material.ancestor.image());
  merged.image.header.origin = FurthestOrigin(images);
  usage->set_compute_ms(usage->compute_ms() + absl::ToDoubleMilliseconds(absl::Now() - loaded));
  return merged;
}

}  // namespace anabranch
