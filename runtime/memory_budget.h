// How much memory a process may still take, and what to say when a model needs more.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace anabranch {

struct MemoryBudget {
  uint64_t available = 0;  // bytes
  std::string limited_by;  // "the machine" or "the control group"
};

// The least of the machine's MemAvailable and what the process's control groups (version 1 or 2)
// have left; their page cache counts as available, since it can be dropped. Reads /proc and
// /sys/fs/cgroup under `root`. NOT_FOUND where the system does not say.
absl::StatusOr<MemoryBudget> AvailableMemory(const std::string& root = "");

// RESOURCE_EXHAUSTED if `needed` bytes are more than the budget: names both and `advice`.
absl::Status CheckMemory(absl::string_view what, uint64_t needed, const MemoryBudget& budget,
                         absl::string_view advice);

// "1.50 GiB", for messages.
std::string HumanMemory(uint64_t bytes);

}  // namespace anabranch
