// Opening a library: what must be true before it may be served.
//
// A library exists once its high-water file does. The file is made last, after the database and its
// keys are durable, so a crash while a library is created leaves something that is created again.
#include <openssl/rand.h>
#include <rocksdb/env.h>

#include <filesystem>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_files.h"
#include "statestore/record_codec.h"
#include "statestore/rocks_options.h"
#include "statestore/rocks_state_store.h"
#include "statestore/rocks_status.h"
#include "statestore/upgrade.h"

namespace anabranch {
namespace {

constexpr size_t kLibraryIdBytes = 16;

absl::Status CheckFormat(uint64_t version, const std::string& directory) {
  if (version == kLibraryFormatVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the library ", directory, " has format version ", version,
      "; this build reads and writes version ", kLibraryFormatVersion, ". Nothing was changed"));
}

absl::StatusOr<std::string> RandomBytes(size_t count) {
  std::string bytes(count, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) != 1) {
    return absl::InternalError("no random bytes from the system");
  }
  return bytes;
}

// Syncs the directory and its parent, so that the library is found after a power loss.
absl::Status MakeDirectory(const StoreOptions& options) {
  rocksdb::Env& env = EnvOf(options);
  std::error_code error;
  const std::filesystem::path path = std::filesystem::absolute(options.directory, error);
  if (!error) std::filesystem::create_directories(path, error);
  if (error) {
    return absl::FailedPreconditionError(absl::StrCat("cannot create the library's directory ",
                                                      options.directory, ": ", error.message()));
  }
  for (const std::string& each : {path.string(), path.parent_path().string()}) {
    std::unique_ptr<rocksdb::Directory> directory;
    ANABRANCH_RETURN_IF_ERROR(FromRocks(env.NewDirectory(each, &directory), each));
    ANABRANCH_RETURN_IF_ERROR(FromRocks(directory->Fsync(), each));
  }
  return absl::OkStatus();
}

absl::StatusOr<LibraryMeta> WriteNewMeta(Database& database) {
  LibraryMeta meta;
  meta.format_version = kLibraryFormatVersion;
  ANABRANCH_ASSIGN_OR_RETURN(meta.hash_key, RandomBytes(PrefixHasher::kKeyBytes));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string id, RandomBytes(kLibraryIdBytes));
  const Snapshot snapshot(database);
  Overlay changes(snapshot);
  changes.Put(Family::kMeta, std::string(kFormatVersionKey),
              EncodeNumber(kFormatVersionKey, kLibraryFormatVersion));
  changes.Put(Family::kMeta, std::string(kHashKeyKey), EncodeBytes(kHashKeyKey, meta.hash_key));
  changes.Put(Family::kMeta, std::string(kLibraryIdKey), EncodeBytes(kLibraryIdKey, id));
  ANABRANCH_RETURN_IF_ERROR(database.Write(changes));
  return meta;
}

// The mark says what was acknowledged, the database what was recovered.
absl::Status CheckNothingLost(const absl::StatusOr<HighWaterContents>& mark,
                              const LibraryMeta& meta, const StoreOptions& options) {
#ifdef ANABRANCH_BROKEN_NO_MARK_CHECK  // tests/crash/mutation_check.py shows that tests notice
  return absl::OkStatus();
#endif
  if (options.accept_data_loss) return absl::OkStatus();
  if (!mark.ok()) {
    if (absl::IsNotFound(mark.status()) && meta.commit_seq == 0) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("the library ", options.directory, " holds commits up to ", meta.commit_seq,
                     ", but nothing says how many were acknowledged: ", mark.status().message()));
  }
  if (meta.commit_seq >= mark->commit_seq) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the library ", options.directory,
                                          " acknowledged commits up to ", mark->commit_seq,
                                          ", but only those up to ", meta.commit_seq,
                                          " were recovered: ", mark->commit_seq - meta.commit_seq,
                                          " commit groups are lost. Restore a copy that has them"));
}

absl::StatusOr<LibraryMeta> EnsureMeta(Database& database, const StoreOptions& options) {
  ANABRANCH_ASSIGN_OR_RETURN(LibraryMeta meta, ReadLibraryMeta(database));
  if (meta.format_version == 0 && meta.hash_key.empty() && meta.commit_seq == 0) {
    return WriteNewMeta(database);
  }
  ANABRANCH_RETURN_IF_ERROR(CheckFormat(meta.format_version, options.directory));
  if (meta.hash_key.size() == PrefixHasher::kKeyBytes) return meta;
  return absl::DataLossError(absl::StrCat("the library ", options.directory, " lost its hash key"));
}

absl::Status CheckDatabaseIsThere(const HighWaterContents& mark, const StoreOptions& options) {
  const std::string current = LibraryFiles(options.directory).database + "/CURRENT";
  if (EnvOf(options).FileExists(current).ok()) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("the library ", options.directory, " acknowledged commits up to ",
                   mark.commit_seq, ", but its database is gone. Restore a copy that has them"));
}

// Recovery writes what it recovered and drops the damaged log with all that may follow the damage.
// So the question whether anything is lost is asked first, of a database that changes nothing: a
// refused library stays as it is, for whoever has to repair it.
absl::Status InspectExisting(const absl::StatusOr<HighWaterContents>& mark,
                             const StoreOptions& options) {
  if (mark.ok()) {
    ANABRANCH_RETURN_IF_ERROR(CheckFormat(mark->format_version, options.directory));
    ANABRANCH_RETURN_IF_ERROR(CheckDatabaseIsThere(*mark, options));
  }
  absl::StatusOr<std::unique_ptr<Database>> database =
      Database::Open(LibraryFiles(options.directory).database, options, Database::Mode::kInspect);
  // A library whose creation was interrupted cannot be opened yet.
  if (!database.ok()) {
    return absl::IsNotFound(mark.status()) ? absl::OkStatus() : database.status();
  }
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta meta, ReadLibraryMeta(**database));
  return CheckNothingLost(mark, meta, options);
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateStore>> OpenStateStore(const StoreOptions& options) {
  if (options.directory.empty()) return absl::InvalidArgumentError("directory is empty");
  rocksdb::Env& env = EnvOf(options);
  const std::string mark_path = LibraryFiles(options.directory).mark;
  const bool has_database =
      env.FileExists(LibraryFiles(options.directory).database + "/CURRENT").ok();
  const bool exists = has_database || env.FileExists(mark_path).ok();
  if (!exists && !options.create_if_missing) {
    return absl::NotFoundError(absl::StrCat("there is no library in ", options.directory));
  }
  if (!exists) ANABRANCH_RETURN_IF_ERROR(MakeDirectory(options));
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<LibraryLock> lock,
                             LibraryLock::Acquire(env, options.directory));

  const absl::StatusOr<HighWaterContents> mark = HighWaterMark::Read(env, mark_path);
  if (exists) ANABRANCH_RETURN_IF_ERROR(InspectExisting(mark, options));
  ReachCrashPoint(CrashPoint::kOpenInspected);
  ANABRANCH_ASSIGN_OR_RETURN(
      std::unique_ptr<Database> database,
      Database::Open(LibraryFiles(options.directory).database, options,
                     mark.ok() ? Database::Mode::kOpen : Database::Mode::kCreate));
  ReachCrashPoint(CrashPoint::kOpenRecovered);
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta meta, EnsureMeta(*database, options));
  ANABRANCH_RETURN_IF_ERROR(CheckNothingLost(mark, meta, options));
  ANABRANCH_RETURN_IF_ERROR(AddRetention(*database));
  ReachCrashPoint(CrashPoint::kOpenMetaWritten);
  if (!mark.ok() || mark->commit_seq > meta.commit_seq) {
    ANABRANCH_RETURN_IF_ERROR(
        HighWaterMark::Create(env, mark_path, {kLibraryFormatVersion, meta.commit_seq}));
  }
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<HighWaterMark> open_mark,
                             HighWaterMark::Open(env, mark_path, kLibraryFormatVersion));
  ANABRANCH_ASSIGN_OR_RETURN(UseByTenant use, ReadUse(Snapshot(*database)));
  return std::make_unique<RocksStateStore>(options, std::move(lock), std::move(database),
                                           std::move(open_mark), meta.hash_key, meta.commit_seq,
                                           std::move(use));
}

}  // namespace anabranch
