// The disk under a RocksDB database stops at its first failed write or sync: from then on nothing
// on it changes, and the database serves reads until it is closed.
//
// RocksDB is not told when it is its log, its list of files (MANIFEST) or a directory that failed.
// It cannot go on after that in any case, and it does not come to its end in good order: a flush
// that is under way syncs the log again, references to families are lost, and where RocksDB is
// built with assertions, as Debian's is, the process is aborted. So these report success and do
// nothing any more; whatever else is written reports the failure, so no table is finished, and
// nothing is renamed or deleted. Whoever writes to the database asks `status` after each write:
// what RocksDB took for written may be in its memory alone (database.h has what readers see).
#pragma once

#include <atomic>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace rocksdb {
class Env;
}

namespace anabranch {

// Thread safe.
class FailStop {
 public:
  // OK until something failed; then the first failure, for ever. RESOURCE_EXHAUSTED: the disk was
  // full.
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mutex_);
  bool stopped() const { return stopped_; }
  void Stop(absl::Status failure) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> stopped_{false};
};

// The environment of one database, on the files of `base`.
std::unique_ptr<rocksdb::Env> FailStopEnvironment(rocksdb::Env& base,
                                                  std::shared_ptr<FailStop> stop);

}  // namespace anabranch
