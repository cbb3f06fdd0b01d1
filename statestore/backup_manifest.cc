#include "statestore/backup_manifest.h"

#include <rocksdb/env.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/library_files.h"
#include "statestore/record_codec.h"
#include "statestore/rocks_status.h"
#include "statestore/sha256.h"

namespace anabranch {
namespace {

constexpr uint64_t kVersion = 1;

std::string Folder(const std::string& directory) { return directory + "/anabranch"; }
std::string Path(const std::string& directory, int64_t id) {
  return absl::StrCat(Folder(directory), "/", id);
}
std::string SealKey(int64_t id) { return absl::StrCat("backup ", id); }

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::string bytes;
  const rocksdb::Status read = rocksdb::ReadFileToString(rocksdb::Env::Default(), path, &bytes);
  if (read.IsNotFound() || read.IsPathNotFound()) {
    return absl::NotFoundError(absl::StrCat(path, " does not exist"));
  }
  ANABRANCH_RETURN_IF_ERROR(FromRocks(read, path));
  return bytes;
}

absl::StatusOr<std::string> MetaHash(const std::string& directory, int64_t id) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::string meta, ReadFile(BackupMetaPath(directory, id)));
  Sha256 hash;
  hash.Add(meta);
  return hash.Finish();
}

}  // namespace

std::string BackupMetaPath(const std::string& directory, int64_t id) {
  return absl::StrCat(directory, "/meta/", id);
}

absl::Status WriteBackupManifest(const std::string& directory, const BackupInfo& info) {
  rocksdb::Env& env = *rocksdb::Env::Default();
  ANABRANCH_ASSIGN_OR_RETURN(const std::string meta, MetaHash(directory, info.id));
  ByteWriter writer;
  writer.Varint(kVersion);
  writer.Signed(absl::ToUnixNanos(info.created));
  writer.Fixed64(info.commit_seq);
  writer.String(info.library_id);
  writer.Varint(info.size_bytes);
  writer.Varint(info.new_bytes);
  writer.Varint(info.states);
  writer.String(meta);
  const std::string bytes = EncodeBytes(SealKey(info.id), std::move(writer).Take());
  const std::string path = Path(directory, info.id), temporary = path + ".new";
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(env.CreateDirIfMissing(Folder(directory)), Folder(directory)));
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(rocksdb::WriteStringToFile(&env, bytes, temporary, /*should_sync=*/true), path));
  ReachCrashPoint(CrashPoint::kBackupManifestWritten);
  ANABRANCH_RETURN_IF_ERROR(FromRocks(env.RenameFile(temporary, path), path));
  ReachCrashPoint(CrashPoint::kBackupManifestRenamed);
  ANABRANCH_RETURN_IF_ERROR(SyncDirectory(Folder(directory)));
  return SyncDirectory(directory);
}

absl::Status RemoveBackupManifest(const std::string& directory, int64_t id) {
  const std::string path = Path(directory, id);
  const rocksdb::Status removed = rocksdb::Env::Default()->DeleteFile(path);
  if (removed.IsNotFound() || removed.IsPathNotFound()) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(FromRocks(removed, path));
  return SyncDirectory(Folder(directory));
}

absl::StatusOr<BackupInfo> ReadBackupManifest(const std::string& directory, int64_t id) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(Path(directory, id)));
  const absl::StatusOr<std::string> body = DecodeBytes(SealKey(id), bytes);
  if (!body.ok()) {
    return absl::DataLossError(
        absl::StrCat(Path(directory, id), " is damaged: ", body.status().message()));
  }
  ByteReader reader(*body);
  const uint64_t version = reader.Varint();
  if (version != kVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "backup ", id, " has format version ", version, "; this build reads version ", kVersion));
  }
  BackupInfo info;
  info.id = id;
  info.created = absl::FromUnixNanos(reader.Signed());
  info.commit_seq = reader.Fixed64();
  info.library_id = std::string(reader.String());
  info.size_bytes = reader.Varint();
  info.new_bytes = reader.Varint();
  info.states = static_cast<int64_t>(reader.Varint());
  const std::string meta(reader.String());
  if (!reader.AtEnd()) {
    return absl::DataLossError(absl::StrCat(Path(directory, id), " is malformed"));
  }
  const absl::StatusOr<std::string> found = MetaHash(directory, id);
  if (found.ok() && *found == meta) return info;
  return absl::DataLossError(
      absl::StrCat(BackupMetaPath(directory, id), " is ",
                   absl::IsNotFound(found.status()) ? "missing" : "damaged"));
}

std::vector<int64_t> BackupManifests(const std::string& directory) {
  std::vector<std::string> names;
  rocksdb::Env::Default()->GetChildren(Folder(directory), &names).PermitUncheckedError();
  std::vector<int64_t> ids;
  for (const std::string& name : names) {
    int64_t id = 0;
    if (absl::SimpleAtoi(name, &id) && id > 0) ids.push_back(id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace anabranch
