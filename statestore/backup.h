// Copies of a library that can be taken anywhere: consistent at one commit, incremental (files that
// an earlier backup has are shared), and trusted only after they were read back.
//
// A backup directory is one of RocksDB's BackupEngine with one more file for each backup,
// `anabranch/<id>`, written last: what it says was verified. A backup without it was interrupted;
// it is never restored, and the next backup removes it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace rocksdb {
class Env;
}

namespace anabranch {

class Database;

struct BackupInfo {
  int64_t id = 0;
  absl::Time created;
  uint64_t commit_seq = 0;  // holds all commits up to this one and none after
  std::string library_id;   // raw
  uint64_t size_bytes = 0;  // of all its files
  uint64_t new_bytes = 0;   // of those that no earlier backup had
  int64_t states = 0;       // an estimate
  std::string problem;      // why it cannot be restored; empty: none known
};

struct BackupProgress {
  const char* phase = "";        // "copying", "verifying"
  uint64_t done = 0, total = 0;  // bytes; total 0: not known
};
// Called now and then; false asks to stop (CANCELLED).
using BackupObserver = std::function<bool(const BackupProgress&)>;

struct BackupRequest {
  std::string directory;
  int keep = 0;                       // complete backups to keep, the new one included; 0: all
  uint64_t max_bytes_per_second = 0;  // 0: no limit
  BackupObserver observer;
};

// Backs up an open database; `expected_seq`: a commit that the backup must hold.
// FAILED_PRECONDITION if the directory is in use or has backups of another library.
absl::StatusOr<BackupInfo> CreateBackup(const Database& database, uint64_t expected_seq,
                                        const BackupRequest& request);

// The newest first; with those that were interrupted or are damaged as far as that shows without
// reading them. NOT_FOUND if the directory is no backup directory.
absl::StatusOr<std::vector<BackupInfo>> ListBackups(const std::string& directory);

// Reads every file and compares it with its checksum, then opens the copy. `id` 0: the newest
// complete one. DATA_LOSS says what is wrong.
absl::StatusOr<BackupInfo> VerifyBackup(const std::string& directory, int64_t id);

// Where a complete backup can be opened for reading: a database's name in an environment that finds
// its files. `id` 0: the newest.
struct BackupLocation {
  std::shared_ptr<rocksdb::Env> env;
  std::string name;
};
absl::StatusOr<BackupLocation> LocateBackup(const std::string& directory, int64_t id);

// Makes the library `target`, which must not exist or be empty, from a backup, after verifying it.
// The library exists when this returns OK, and not before; what is left of an interrupted restore
// is replaced by the next.
absl::StatusOr<BackupInfo> RestoreBackup(const std::string& directory, int64_t id,
                                         const std::string& target, const BackupObserver& observer);

}  // namespace anabranch
