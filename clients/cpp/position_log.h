// Which positions of a lineage have a state, and what it costs to reach the others.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "anabranch/v1/states.pb.h"

namespace anabranch {

struct PositionLog {
  std::vector<v1::LogEntry> entries;  // newest first
  int64_t token_count = 0;            // of the session or state
  int64_t first_token_count = 0;      // below it nothing can be reached: that of a merge, or 0

  // Tokens that a rewind to `position` replays; nullopt if it cannot be reached.
  std::optional<int64_t> ReplayTo(int64_t position) const;
};

}  // namespace anabranch
