// How StateId() (state_store.h) hashes a record. The result is part of the library's format: it
// must never change for a given content.
#pragma once

#include "statestore/state_store.h"

namespace anabranch {

// Bumped only together with the "st-" prefix: ids never change meaning.
inline constexpr char kStateIdDomain[] = "anabranch state id 1";

// INVALID_ARGUMENT, naming both, if record.id is not StateId(record).
absl::Status CheckStateId(const StateRecord& record);

}  // namespace anabranch
