// When states were last used since the server started: what the re-encoder leaves alone.
#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace anabranch {

// Thread-safe; bounded.
class StateHeat {
 public:
  void Touch(const std::string& id) {
    const absl::Time now = absl::Now();
    absl::MutexLock lock(&mutex_);
    if (used_.size() >= kMaxStates) {  // whoever is forgotten counts as used now
      used_.clear();
      forgotten_ = now;
    }
    used_[id] = now;
  }
  // The infinite past: never that is known.
  absl::Time LastUse(const std::string& id) const {
    absl::MutexLock lock(&mutex_);
    const auto found = used_.find(id);
    return found == used_.end() ? forgotten_ : found->second;
  }

 private:
  static constexpr size_t kMaxStates = 1 << 17;

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, absl::Time> used_ ABSL_GUARDED_BY(mutex_);
  absl::Time forgotten_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace anabranch
