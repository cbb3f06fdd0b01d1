// A DelegateRequest checked: what each branch reads and how it generates, and what is kept.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "anabranch/v1/sessions.pb.h"
#include "runtime/engine.h"
#include "service/limits.h"
#include "service/served_model.h"
#include "statestore/state_store.h"

namespace anabranch {

struct BranchPlan {
  int32_t number = 0;  // from 1
  std::string name;    // of the session that it becomes if it is kept
  bool reply = false;
  std::vector<std::string> stop;
  absl::Duration time_limit = absl::InfiniteDuration();
  GenerateWork work;           // without sequence and callbacks
  std::vector<int32_t> input;  // set by EncodeInputs
};

struct DelegatePlan {
  v1::DelegatePolicy policy = v1::DELEGATE_POLICY_DROP;
  int32_t keep = 0;  // how many branches at most
  Labels labels;     // of what is kept
  std::vector<BranchPlan> branches;
};

// Everything but the inputs. INVALID_ARGUMENT names the field, "options.stop" or
// "branches[2].options.max_tokens" for example; FAILED_PRECONDITION if the model lacks something.
absl::StatusOr<DelegatePlan> ParseDelegateRequest(const v1::DelegateRequest& request,
                                                  const ServedModel& model, const Limits& limits);

// Encodes each branch's input as it follows `context`, with the reply's prefix where one is asked
// for. INVALID_ARGUMENT names the field.
absl::Status EncodeInputs(const v1::DelegateRequest& request, const ServedModel& model,
                          const Limits& limits, absl::Span<const int32_t> context,
                          DelegatePlan* plan);

}  // namespace anabranch
