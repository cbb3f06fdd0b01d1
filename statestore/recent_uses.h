// When states were read last, for eviction. Kept in memory alone: a use must not cost a write.
// Thread rule: any thread.
#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace anabranch {

class RecentUses {
 public:
  void Note(std::string state_key, absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);
  // The infinite past if it is not known.
  absl::Time Last(const std::string& state_key) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, absl::Time> uses_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch
