// Where bundles arrive: one file for each transfer, kept while it is broken so that it can go on,
// and removed when it was taken in, was wrong, or was left alone for a day.
//
// Thread rule: every member of ImportStaging may be called from any thread; a StagedImport belongs
// to one call.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace anabranch {

inline constexpr absl::Duration kImportLifetime = absl::Hours(24);

class ImportStaging;

class StagedImport {
 public:
  ~StagedImport();
  StagedImport(const StagedImport&) = delete;
  StagedImport& operator=(const StagedImport&) = delete;

  int64_t received() const { return received_; }
  // Adds bytes at the end. RESOURCE_EXHAUSTED: the disk is full.
  absl::Status Append(absl::string_view bytes);
  // Reads up to `count` bytes from `offset`.
  absl::StatusOr<std::string> Read(int64_t offset, size_t count) const;
  // Drops all bytes, and the file with the transfer's end.
  absl::Status Restart();
  void Discard() { discard_ = true; }

 private:
  friend class ImportStaging;
  StagedImport(ImportStaging* staging, std::string path, int file, int64_t received)
      : staging_(staging), path_(std::move(path)), file_(file), received_(received) {}

  ImportStaging* const staging_;
  const std::string path_;
  const int file_;
  int64_t received_;
  bool discard_ = false;
};

class ImportStaging {
 public:
  // In a directory of its own; `reserved_bytes` of the disk are left free. Removes what is old.
  ImportStaging(std::string directory, uint64_t reserved_bytes);

  // The transfer as far as it is. ABORTED (TRANSFER_BUSY) if a call runs on it; RESOURCE_EXHAUSTED
  // (LIBRARY_FULL) if `size_bytes` and what taking them in needs would not fit on the disk.
  absl::StatusOr<std::unique_ptr<StagedImport>> Open(const std::string& tenant,
                                                     const std::string& transfer_id,
                                                     int64_t size_bytes);

 private:
  friend class StagedImport;
  void Close(const std::string& path);
  void RemoveOld();

  const std::string directory_;
  const uint64_t reserved_bytes_;
  absl::Mutex mutex_;
  absl::flat_hash_set<std::string> open_ ABSL_GUARDED_BY(mutex_);  // paths
};

}  // namespace anabranch
