// A library that no server has open, or a backup where it lies, opened for reading alone: nothing
// on disk is changed, not even what recovery would.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "statestore/scrub.h"

namespace rocksdb {
class Env;
}

namespace anabranch {

class LibraryLock;
struct LibraryMeta;

class StoppedLibrary {
 public:
  // NOT_FOUND: no library; FAILED_PRECONDITION: a server has it open; DATA_LOSS: acknowledged
  // commits are missing.
  static absl::StatusOr<std::unique_ptr<StoppedLibrary>> Open(const std::string& directory);
  // Of a complete backup; `id` 0: the newest.
  static absl::StatusOr<std::unique_ptr<StoppedLibrary>> OpenBackup(const std::string& directory,
                                                                    int64_t id);
  ~StoppedLibrary();

  uint64_t commit_seq() const { return commit_seq_; }
  int64_t states() const;  // an estimate
  // As ScrubNext.
  absl::StatusOr<ScrubStep> Next(const std::string& from, uint64_t max_bytes) const;

 private:
  StoppedLibrary(std::shared_ptr<rocksdb::Env> env, std::unique_ptr<LibraryLock> lock,
                 std::unique_ptr<Database> database, const LibraryMeta& meta);

  const std::shared_ptr<rocksdb::Env> env_;  // of a backup; outlives the database
  const std::unique_ptr<LibraryLock> lock_;
  const std::unique_ptr<Database> database_;
  const std::unique_ptr<PrefixHasher> hasher_;
  const uint64_t commit_seq_;
};

}  // namespace anabranch
