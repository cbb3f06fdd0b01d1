// Holds a library for one process: a lock on a file in its directory, which the system releases
// when the process ends, however it ends.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace rocksdb {
class Env;
class FileLock;
}  // namespace rocksdb

namespace anabranch {

class LibraryLock {
 public:
  // The directory exists. FAILED_PRECONDITION, naming it, if another process (or this one) has it.
  static absl::StatusOr<std::unique_ptr<LibraryLock>> Acquire(rocksdb::Env& env,
                                                              const std::string& directory);
  ~LibraryLock();
  LibraryLock(const LibraryLock&) = delete;
  LibraryLock& operator=(const LibraryLock&) = delete;

 private:
  LibraryLock(rocksdb::Env& env, rocksdb::FileLock* lock) : env_(env), lock_(lock) {}

  rocksdb::Env& env_;
  rocksdb::FileLock* const lock_;
};

}  // namespace anabranch
