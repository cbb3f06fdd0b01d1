// States merged into one, ready for the library: what Merge and the bases of sessions share.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/state_merge.h"
#include "service/computed_state.h"
#include "service/service_context.h"

namespace anabranch {

struct MergePlan {
  std::vector<StateRecord> inputs;
  std::string ancestor;            // what all go on from, counted once; empty: none
  std::vector<std::string> since;  // by input, where its own part begins if not at the ancestor
                                   // but later; empty: nowhere but at the ancestor
  MergeOptions options;            // with a weight for each input
};

struct MergedState {
  Computation computation;  // without labels
  StateImage image;
  int64_t elapsed = 0;  // tokens' time that T covers
};

// Loads the states and merges them; adds what it costs to `usage`. INVALID_ARGUMENT
// (LIMIT_EXCEEDED) for too many tokens, DATA_LOSS for a damaged state. Blocks.
absl::StatusOr<MergedState> MergeStored(const ServiceContext& service, const Call& call,
                                        const MergePlan& plan, v1::Usage* usage);

}  // namespace anabranch
