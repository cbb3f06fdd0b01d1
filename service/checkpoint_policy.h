// Which states a session captures by itself, and which of them it gives up again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "anabranch/v1/resources.pb.h"
#include "statestore/records.h"

namespace anabranch {

// INVALID_ARGUMENT names the field that is out of range.
absl::StatusOr<CheckpointPolicy> ParseCheckpointPolicy(const v1::CheckpointPolicy& policy);
v1::CheckpointPolicy ToProto(const CheckpointPolicy& policy);

// "turn", "grid" and so on, as the API names why a state was captured.
std::string KindName(const StateRecord& record);

// A state of a session's own line.
struct LineState {
  std::string id;
  int64_t position = 0;
  CaptureReason kind = CaptureReason::kUnknown;
  int64_t bytes = 0;  // of the payload
};

// Removes from `line` (in the order of positions) the states that a session standing at `head`
// gives up under its policy, and returns their ids. `every` is the grid in use; the state at the
// head and those that clients asked for stay. What stays at one head is chosen from what stays at
// any lower one, so thinning as a session grows gives the same as thinning once.
std::vector<std::string> ThinLine(const CheckpointPolicy& policy, int64_t every, int64_t head,
                                  std::vector<LineState>* line);

}  // namespace anabranch
