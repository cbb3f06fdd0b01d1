// Goes through the states whose time has come, in commits of a few states each.
#pragma once

#include "statestore/database.h"
#include "statestore/retention.h"
#include "statestore/state_store.h"

namespace anabranch {

absl::Status ExpireDue(const Database& database, StateStore& store, const SweepOptions& options,
                       SweepReport& report);

}  // namespace anabranch
