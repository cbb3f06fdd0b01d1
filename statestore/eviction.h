// Brings what the states take down to a budget, least valuable states first; retention.h says what
// value is and what is exempt. Looks at all states when it starts, a few at a time, and keeps a few
// dozen bytes of each candidate; then archives in commits of a few states each.
#pragma once

#include "statestore/database.h"
#include "statestore/recent_uses.h"
#include "statestore/retention.h"
#include "statestore/state_store.h"

namespace anabranch {

absl::Status Evict(const Database& database, StateStore& store, const RecentUses& uses,
                   const SweepOptions& options, SweepReport& report);

}  // namespace anabranch
