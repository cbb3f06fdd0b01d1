// When states were read last, for eviction. Kept in memory, as a use must not cost a write, and in
// a small file beside the library that is written now and then: a crash forgets what came since,
// and a file that is lost or damaged costs nothing but the order in which states are let go. Thread
// rule: any thread.
#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace rocksdb {
class Env;
}

namespace anabranch {

class RecentUses {
 public:
  void Note(std::string state_key, absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);
  // The infinite past if it is not known.
  absl::Time Last(const std::string& state_key) const ABSL_LOCKS_EXCLUDED(mutex_);

  // Takes over what the file says, if it is there and whole.
  void Load(rocksdb::Env& env, const std::string& path) ABSL_LOCKS_EXCLUDED(mutex_);
  // Replaces the file, unless nothing was noted since; failures are not worth a word. One at a
  // time.
  void Save(rocksdb::Env& env, const std::string& path) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, absl::Time> uses_ ABSL_GUARDED_BY(mutex_);
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace anabranch
