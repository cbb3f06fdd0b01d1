#include "service/delegate_plan.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/generate_request.h"
#include "service/names.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

std::string BranchField(int index, const char* field) {
  return absl::StrCat("branches[", index, "].", field);
}

// The status of a part of the request, with the part named before the field.
absl::Status Inside(const absl::Status& status, const std::string& part) {
  if (status.ok()) return status;
  google::rpc::ErrorInfo info = ErrorInfoOf(status);
  ErrorMetadata metadata;
  for (const auto& [key, value] : info.metadata()) {
    metadata.emplace_back(key, key == "field" ? absl::StrCat(part, ".", value) : value);
  }
  return ErrorWithReason(status.code(), info.reason(), absl::StrCat(part, ".", status.message()),
                         metadata);
}

v1::BranchOptions WithOverrides(v1::BranchOptions options, const v1::BranchOptions& own) {
  if (own.has_sampling()) options.clear_sampling();
  if (own.stop_size() > 0) options.clear_stop();
  options.MergeFrom(own);
  return options;
}

absl::StatusOr<BranchPlan> ParseOptions(const v1::BranchOptions& options, const ServedModel& model,
                                        const Limits& limits) {
  v1::GenerateRequest generate;
  *generate.mutable_sampling() = options.sampling();
  *generate.mutable_stop() = options.stop();
  generate.set_max_tokens(options.max_tokens());
  generate.set_reply(options.reply());
  generate.set_ignore_eos(options.ignore_eos());
  BranchPlan plan;
  ANABRANCH_ASSIGN_OR_RETURN(plan.work, ParseGenerateRequest(generate, model, limits));
  plan.reply = options.reply();
  plan.stop.assign(options.stop().begin(), options.stop().end());
  if (options.time_limit_ms() < 0) return InvalidField("time_limit_ms", "must not be negative");
  if (options.time_limit_ms() > 0) plan.time_limit = absl::Milliseconds(options.time_limit_ms());
  return plan;
}

// How many to keep, and that what belongs to one policy is not given with another.
absl::Status ParsePolicy(const v1::DelegateRequest& request, DelegatePlan* plan) {
  switch (request.policy()) {
    case v1::DELEGATE_POLICY_UNSPECIFIED:
    case v1::DELEGATE_POLICY_DROP:
      break;
    case v1::DELEGATE_POLICY_KEEP:
      plan->keep = request.branches_size();
      break;
    case v1::DELEGATE_POLICY_BEST:
      plan->keep = request.keep_best() == 0 ? 1 : request.keep_best();
      break;
    default:
      return InvalidField("policy", "is none that this server knows");
  }
  if (request.policy() != v1::DELEGATE_POLICY_UNSPECIFIED) plan->policy = request.policy();
  if (request.keep_best() != 0 && plan->policy != v1::DELEGATE_POLICY_BEST) {
    return InvalidField("keep_best", "needs the policy BEST");
  }
  if (plan->keep < 0 || plan->keep > request.branches_size()) {
    return InvalidField("keep_best", absl::StrCat("is ", request.keep_best(), ", must be 1 to ",
                                                  request.branches_size(), ", or 0 for 1"));
  }
  if (plan->keep == 0 && (!request.prefix().empty() || !request.labels().empty())) {
    return InvalidField(request.prefix().empty() ? "labels" : "prefix",
                        "needs the policy KEEP or BEST");
  }
  ANABRANCH_ASSIGN_OR_RETURN(plan->labels, ParseLabels(request.labels()));
  return absl::OkStatus();
}

// Names of what may be kept. What is not has a random one, which nobody sees.
absl::Status NameBranches(const v1::DelegateRequest& request, DelegatePlan* plan) {
  std::string prefix = request.prefix();
  if (prefix.empty()) prefix = request.session_id();
  if (prefix.empty()) prefix = request.ref_name();
  if (plan->keep > 0 && prefix.empty()) {
    return InvalidField("prefix", "is needed to name branches of a state");
  }
  for (BranchPlan& branch : plan->branches) {
    branch.name = plan->keep > 0 ? absl::StrCat(prefix, "/", branch.number) : RandomSessionId();
    ANABRANCH_RETURN_IF_ERROR(CheckName("prefix", branch.name));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DelegatePlan> ParseDelegateRequest(const v1::DelegateRequest& request,
                                                  const ServedModel& model, const Limits& limits) {
  if (request.source_case() == v1::DelegateRequest::SOURCE_NOT_SET) {
    return InvalidField("source", "one of session_id, state_id and ref_name must be set");
  }
  const int count = request.branches_size();
  if (count < 1 || count > kMaxForks) {
    return InvalidField("branches",
                        absl::StrCat("has ", count, " entries, must have 1 to ", kMaxForks));
  }
  DelegatePlan plan;
  ANABRANCH_RETURN_IF_ERROR(ParsePolicy(request, &plan));
  ANABRANCH_RETURN_IF_ERROR(
      Inside(ParseOptions(request.options(), model, limits).status(), "options"));
  for (int i = 0; i < count; ++i) {
    auto branch = ParseOptions(WithOverrides(request.options(), request.branches(i).options()),
                               model, limits);
    if (!branch.ok()) return Inside(branch.status(), BranchField(i, "options"));
    branch->number = i + 1;
    plan.branches.push_back(*std::move(branch));
  }
  ANABRANCH_RETURN_IF_ERROR(NameBranches(request, &plan));
  return plan;
}

absl::Status EncodeInputs(const v1::DelegateRequest& request, const ServedModel& model,
                          const Limits& limits, absl::Span<const int32_t> context,
                          DelegatePlan* plan) {
  const int64_t limit = std::min(limits.max_append_tokens, limits.max_context_tokens);
  for (BranchPlan& branch : plan->branches) {
    const v1::DelegateBranch& from = request.branches(branch.number - 1);
    if (from.has_input()) {
      ANABRANCH_ASSIGN_OR_RETURN(
          branch.input,
          model.Encode(from.input(), context, limit, BranchField(branch.number - 1, "input")));
    }
    if (branch.reply) {
      const std::vector<int32_t>& prefix = model.chat()->reply_prefix();
      branch.input.insert(branch.input.end(), prefix.begin(), prefix.end());
    }
    if (context.empty() && branch.input.empty()) {
      return InvalidField(BranchField(branch.number - 1, "input"),
                          "is needed: the source has read nothing yet");
    }
  }
  return absl::OkStatus();
}

}  // namespace anabranch
