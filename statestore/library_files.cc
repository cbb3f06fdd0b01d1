#include "statestore/library_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <optional>

#include "statestore/base/status_macros.h"
#include "statestore/record_codec.h"

namespace anabranch {
namespace {

absl::Status SyncPath(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat("opening ", path));
  const bool synced = fsync(file) == 0;
  const int error = errno;
  close(file);
  return synced ? absl::OkStatus() : absl::ErrnoToStatus(error, absl::StrCat("syncing ", path));
}

}  // namespace

absl::StatusOr<LibraryMeta> ReadLibraryMeta(const Database& database) {
  const Snapshot snapshot(database);
  LibraryMeta meta;
  const auto read = [&](absl::string_view key, auto decode, auto& field) -> absl::Status {
    ANABRANCH_ASSIGN_OR_RETURN(const std::optional<std::string> value,
                               snapshot.Get(Family::kMeta, key));
    if (!value.has_value()) return absl::OkStatus();
    ANABRANCH_ASSIGN_OR_RETURN(field, decode(key, *value));
    return absl::OkStatus();
  };
  ANABRANCH_RETURN_IF_ERROR(read(kFormatVersionKey, DecodeNumber, meta.format_version));
  ANABRANCH_RETURN_IF_ERROR(read(kCommitSeqKey, DecodeNumber, meta.commit_seq));
  ANABRANCH_RETURN_IF_ERROR(read(kHashKeyKey, DecodeBytes, meta.hash_key));
  ANABRANCH_RETURN_IF_ERROR(read(kLibraryIdKey, DecodeBytes, meta.library_id));
  return meta;
}

absl::Status SyncAllIn(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (!entry.is_regular_file(error)) continue;
    ANABRANCH_RETURN_IF_ERROR(SyncPath(entry.path()));
  }
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("listing ", directory));
  return SyncPath(directory);
}

absl::Status SyncDirectory(const std::string& directory) { return SyncPath(directory); }

}  // namespace anabranch
