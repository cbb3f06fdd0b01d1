// A state as logs and graphs show it: with who points to it.
#pragma once

#include "absl/status/statusor.h"
#include "anabranch/v1/states.pb.h"
#include "statestore/state_store.h"

namespace anabranch {

// All but next_token_count and base_ids, which depend on the listing. Blocks.
absl::StatusOr<v1::LogEntry> MakeLogEntry(StateStore& store, const StateRecord& state);

}  // namespace anabranch
