#include "statestore/recent_uses.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace anabranch {
namespace {

constexpr size_t kMaxUses = 1 << 16;

}  // namespace

// When it is full, the older half is forgotten.
void RecentUses::Note(std::string state_key, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  uses_[std::move(state_key)] = now;
  if (uses_.size() <= kMaxUses) return;
  std::vector<absl::Time> times;
  times.reserve(uses_.size());
  for (const auto& [key, time] : uses_) times.push_back(time);
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  absl::erase_if(uses_, [&](const auto& use) { return use.second < *middle; });
}

absl::Time RecentUses::Last(const std::string& state_key) const {
  absl::MutexLock lock(&mutex_);
  const auto found = uses_.find(state_key);
  return found != uses_.end() ? found->second : absl::InfinitePast();
}

}  // namespace anabranch
