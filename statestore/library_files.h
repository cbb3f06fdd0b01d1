// Where the parts of a library lie, and what it says of itself.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "statestore/database.h"

namespace anabranch {

// Of the library's folder, as its mark has it: how it has to be opened. 2: there may be a journal.
// 3: payloads may be in parts.
inline constexpr uint32_t kLibraryFormatVersion = 3, kOldestFormatVersion = 1;
// Of what is in the database, which is all that a backup has: 1, or 3 as the library's.
inline constexpr uint32_t kDatabaseFormatVersion = 3, kOldestDatabaseFormatVersion = 1;

struct LibraryFiles {
  explicit LibraryFiles(const std::string& directory)
      : database(absl::StrCat(directory, "/rocksdb")),
        mark(absl::StrCat(directory, "/high-water-mark")),
        journal(absl::StrCat(directory, "/commit-journal")),
        uses(absl::StrCat(directory, "/recent-uses")),
        torn_manifest(absl::StrCat(directory, "/torn-manifest")) {}
  const std::string database, mark, journal, uses;
  const std::string torn_manifest;  // RocksDB's list as a power loss left it, for whoever asks
};

// What the family meta says of the library; all empty in a new one.
struct LibraryMeta {
  bool readable() const {
    return format_version >= kOldestDatabaseFormatVersion &&
           format_version <= kDatabaseFormatVersion;
  }
  uint64_t format_version = 0, commit_seq = 0;
  std::string hash_key, library_id;  // raw
};
absl::StatusOr<LibraryMeta> ReadLibraryMeta(const Database& database);

// Syncs every file in a directory, and the directory.
absl::Status SyncAllIn(const std::string& directory);
// Makes what was created, renamed and removed in it durable.
absl::Status SyncDirectory(const std::string& directory);

}  // namespace anabranch
