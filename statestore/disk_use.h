// How many bytes the files of a directory take. Looked up at most every few seconds: status is
// asked for several times a second, and a large library has many files. Thread rule: any thread.
#pragma once

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace anabranch {

uint64_t BytesUnder(const std::string& directory);

class DiskUse {
 public:
  uint64_t Get(const std::string& directory) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  mutable uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  mutable absl::Time looked_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace anabranch
