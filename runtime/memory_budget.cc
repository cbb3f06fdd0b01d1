#include "runtime/memory_budget.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace anabranch {
namespace {

std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return std::move(text).str();
}

// The number behind `name` at the start of a line.
std::optional<uint64_t> NumberAfter(absl::string_view text, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, name)) continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    uint64_t number = 0;
    if (!words.empty() && absl::SimpleAtoi(words[0], &number)) return number;
  }
  return std::nullopt;
}

// The names that the two versions give to the same figures.
struct GroupFiles {
  const char *limit, *usage, *cache;
};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file "};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                  "total_inactive_file "};

// What one group has left; nullopt without a limit.
std::optional<uint64_t> LeftInGroup(const std::string& folder, const GroupFiles& files) {
  const auto limit = NumberAfter(ReadText(absl::StrCat(folder, "/", files.limit)), "");
  const auto usage = NumberAfter(ReadText(absl::StrCat(folder, "/", files.usage)), "");
  if (!limit.has_value() || !usage.has_value()) return std::nullopt;
  const uint64_t cache =
      NumberAfter(ReadText(absl::StrCat(folder, "/memory.stat")), files.cache).value_or(0);
  const uint64_t used = *usage - std::min(*usage, cache);
  return *limit - std::min(*limit, used);
}

// A group and all groups around it, each of which may have a limit.
std::optional<uint64_t> LeftInGroups(const std::string& mount, absl::string_view group,
                                     const GroupFiles& files) {
  std::optional<uint64_t> least;
  std::string path(absl::StripSuffix(group, "/"));
  while (true) {
    const auto left = LeftInGroup(mount + path, files);
    if (left.has_value()) least = std::min(*left, least.value_or(*left));
    if (path.empty()) return least;
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
}

}  // namespace

absl::StatusOr<MemoryBudget> AvailableMemory(const std::string& root) {
  const auto kib = NumberAfter(ReadText(root + "/proc/meminfo"), "MemAvailable:");
  if (!kib.has_value()) return absl::NotFoundError("/proc/meminfo does not say what is available");
  MemoryBudget budget{*kib * 1024, "the machine"};
  // Lines are "hierarchy:controllers:path"; version 2 has no controllers.
  for (absl::string_view line :
       absl::StrSplit(ReadText(root + "/proc/self/cgroup"), '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    const bool version1 =
        std::find(controllers.begin(), controllers.end(), "memory") != controllers.end();
    if (!version1 && !parts[1].empty()) continue;
    const std::string mount = root + (version1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup");
    const auto left = LeftInGroups(mount, parts[2], version1 ? kVersion1 : kVersion2);
    if (left.has_value() && *left < budget.available) budget = {*left, "the control group"};
  }
  return budget;
}

std::string HumanMemory(uint64_t bytes) {
  if (bytes >= uint64_t{1} << 30) return absl::StrFormat("%.2f GiB", bytes / double{1 << 30});
  return absl::StrFormat("%.1f MiB", bytes / double{1 << 20});
}

absl::Status CheckMemory(absl::string_view what, uint64_t needed, const MemoryBudget& budget,
                         absl::string_view advice) {
  if (needed <= budget.available) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat(what, " need ", HumanMemory(needed), " of memory (", needed, " bytes), and ",
                   budget.limited_by, " has ", HumanMemory(budget.available), " available (",
                   budget.available, " bytes): ", advice));
}

}  // namespace anabranch
