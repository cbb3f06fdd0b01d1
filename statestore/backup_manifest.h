// The file that makes a backup complete: DIR/anabranch/<id>.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "statestore/backup.h"

namespace anabranch {

// Where RocksDB describes the backup.
std::string BackupMetaPath(const std::string& directory, int64_t id);

// Durable when it returns. Also notes the hash of RocksDB's own description of the backup, which
// has no checksum.
absl::Status WriteBackupManifest(const std::string& directory, const BackupInfo& info);
absl::Status RemoveBackupManifest(const std::string& directory, int64_t id);
// DATA_LOSS if it or RocksDB's description is damaged; NOT_FOUND: interrupted.
absl::StatusOr<BackupInfo> ReadBackupManifest(const std::string& directory, int64_t id);
// The ids that have a manifest, readable or not.
std::vector<int64_t> BackupManifests(const std::string& directory);

}  // namespace anabranch
