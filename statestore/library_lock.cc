#include "statestore/library_lock.h"

#include <rocksdb/env.h>

#include "absl/strings/str_cat.h"

namespace anabranch {

absl::StatusOr<std::unique_ptr<LibraryLock>> LibraryLock::Acquire(rocksdb::Env& env,
                                                                  const std::string& directory) {
  rocksdb::FileLock* lock = nullptr;
  const rocksdb::Status status = env.LockFile(absl::StrCat(directory, "/LOCK"), &lock);
  if (!status.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot lock the library ", directory,
                     "; most likely another anabranchd has it open (", status.ToString(), ")"));
  }
  return std::unique_ptr<LibraryLock>(new LibraryLock(env, lock));
}

LibraryLock::~LibraryLock() { env_.UnlockFile(lock_).PermitUncheckedError(); }

}  // namespace anabranch
