// Opening a library: what must be true before it may be served.
//
// A library exists once its high-water file does. The file is made last, after the database and its
// keys are durable, so a crash while a library is created leaves something that is created again.
#include <openssl/rand.h>
#include <rocksdb/env.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/durable_file.h"
#include "statestore/journal_redo.h"
#include "statestore/library_files.h"
#include "statestore/record_codec.h"
#include "statestore/rocks_options.h"
#include "statestore/rocks_state_store.h"
#include "statestore/rocks_status.h"
#include "statestore/torn_manifest.h"
#include "statestore/upgrade.h"

namespace anabranch {
namespace {

constexpr size_t kLibraryIdBytes = 16;

absl::Status RefuseFormat(uint64_t version, uint64_t ours, const std::string& directory) {
  return absl::FailedPreconditionError(
      absl::StrCat("the library ", directory, " has format version ", version,
                   "; this build reads and writes version ", ours, ". Nothing was changed"));
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
  meta.format_version = kDatabaseFormatVersion;
  ANABRANCH_ASSIGN_OR_RETURN(meta.hash_key, RandomBytes(PrefixHasher::kKeyBytes));
  ANABRANCH_ASSIGN_OR_RETURN(const std::string id, RandomBytes(kLibraryIdBytes));
  const Snapshot snapshot(database);
  Overlay changes(snapshot);
  changes.Put(Family::kMeta, std::string(kFormatVersionKey),
              EncodeNumber(kFormatVersionKey, kDatabaseFormatVersion));
  changes.Put(Family::kMeta, std::string(kHashKeyKey), EncodeBytes(kHashKeyKey, meta.hash_key));
  changes.Put(Family::kMeta, std::string(kLibraryIdKey), EncodeBytes(kLibraryIdKey, id));
  ANABRANCH_RETURN_IF_ERROR(database.Write(changes));
  return meta;
}

// Without a mark or the key there is nothing that the journal could be compared with.
absl::StatusOr<JournalContents> ReadJournal(const absl::StatusOr<HighWaterContents>& mark,
                                            const LibraryMeta& meta, const StoreOptions& options) {
  if (!mark.ok() || meta.hash_key.size() != PrefixHasher::kKeyBytes) return JournalContents();
  return CommitJournal::Read(EnvOf(options), LibraryFiles(options.directory).journal, meta.hash_key,
                             mark->commit_seq);
}

// The mark and the journal say what was acknowledged, the database what was recovered.
absl::Status CheckNothingLost(const absl::StatusOr<HighWaterContents>& mark,
                              const JournalContents& journal, const LibraryMeta& meta,
                              const StoreOptions& options) {
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
  const uint64_t acknowledged = std::max(mark->commit_seq, journal.newest_seq);
  const uint64_t reachable = ReachableSeq(journal, meta.commit_seq);
  if (reachable >= acknowledged) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "the library ", options.directory, " acknowledged commits up to ", acknowledged,
      ", but only those up to ", reachable, " were recovered: ", acknowledged - reachable,
      " commit groups are lost. Restore a copy that has them"));
}

absl::StatusOr<LibraryMeta> EnsureMeta(Database& database, const StoreOptions& options) {
  ANABRANCH_ASSIGN_OR_RETURN(LibraryMeta meta, ReadLibraryMeta(database));
  if (meta.format_version == 0 && meta.hash_key.empty() && meta.commit_seq == 0) {
    return WriteNewMeta(database);
  }
  if (!meta.readable()) {
    return RefuseFormat(meta.format_version, kDatabaseFormatVersion, options.directory);
  }
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

absl::Status InspectDatabase(const absl::StatusOr<HighWaterContents>& mark,
                             const StoreOptions& options) {
  absl::StatusOr<std::unique_ptr<Database>> database =
      Database::Open(LibraryFiles(options.directory).database, options, Database::Mode::kInspect);
  // A library whose creation was interrupted cannot be opened yet.
  if (!database.ok()) {
    return absl::IsNotFound(mark.status()) ? absl::OkStatus() : database.status();
  }
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta meta, ReadLibraryMeta(**database));
  ANABRANCH_ASSIGN_OR_RETURN(const JournalContents journal, ReadJournal(mark, meta, options));
  return CheckNothingLost(mark, journal, meta, options);
}

// A torn entry at the end of RocksDB's list of files is cut off, if nothing is lost without it: an
// entry that was durable and rotted looks the same, and what it said is missed then. The list as it
// was found is kept; where it does not help it is put back.
absl::Status InspectWithoutTear(const absl::StatusOr<HighWaterContents>& mark,
                                const StoreOptions& options, const absl::Status& refusal) {
  rocksdb::Env& env = EnvOf(options);
  const LibraryFiles files(options.directory);
  const absl::StatusOr<std::optional<TornManifest>> torn = FindTornManifest(env, files.database);
  if (!torn.ok() || !torn->has_value()) return refusal;
  const TornManifest& found = **torn;
  ANABRANCH_RETURN_IF_ERROR(ReplaceFile(env, files.torn_manifest, found.bytes));
  ANABRANCH_RETURN_IF_ERROR(
      ReplaceFile(env, found.path, absl::string_view(found.bytes).substr(0, found.whole)));
  if (InspectDatabase(mark, options).ok()) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(ReplaceFile(env, found.path, found.bytes));
  return refusal;
}

// Recovery writes what it recovered and drops the damaged log with all that may follow the damage.
// So the question whether anything is lost is asked first, of a database that changes nothing: a
// refused library stays as it is, for whoever has to repair it.
absl::Status InspectExisting(const absl::StatusOr<HighWaterContents>& mark,
                             const StoreOptions& options) {
  if (mark.ok()) {
    if (mark->format_version < kOldestFormatVersion ||
        mark->format_version > kLibraryFormatVersion) {
      return RefuseFormat(mark->format_version, kLibraryFormatVersion, options.directory);
    }
    ANABRANCH_RETURN_IF_ERROR(CheckDatabaseIsThere(*mark, options));
  }
  const absl::Status status = InspectDatabase(mark, options);
  return absl::IsDataLoss(status) ? InspectWithoutTear(mark, options, status) : status;
}

// Brings the database to where the library was. Where a loss is accepted, the journal is lost as
// well: the numbers of its groups will be given again.
absl::Status Recover(const absl::StatusOr<HighWaterContents>& mark, LibraryMeta& meta,
                     Database& database, const StoreOptions& options) {
  ANABRANCH_ASSIGN_OR_RETURN(const JournalContents journal, ReadJournal(mark, meta, options));
  ANABRANCH_RETURN_IF_ERROR(CheckNothingLost(mark, journal, meta, options));
  if (!mark.ok() ||
      ReachableSeq(journal, meta.commit_seq) < std::max(mark->commit_seq, journal.newest_seq)) {
    return CommitJournal::Create(EnvOf(options), LibraryFiles(options.directory).journal,
                                 options.journal_bytes);
  }
  ANABRANCH_RETURN_IF_ERROR(RedoJournal(journal, meta.commit_seq, database));
  ANABRANCH_ASSIGN_OR_RETURN(meta, ReadLibraryMeta(database));
  return absl::OkStatus();
}

// The mark is where the database is before the journal begins anew.
absl::StatusOr<std::unique_ptr<HighWaterMark>> OpenMark(
    const absl::StatusOr<HighWaterContents>& mark, const LibraryMeta& meta,
    const StoreOptions& options) {
  rocksdb::Env& env = EnvOf(options);
  const std::string path = LibraryFiles(options.directory).mark;
  if (!mark.ok() || mark->commit_seq != meta.commit_seq ||
      mark->format_version != kLibraryFormatVersion) {
    ANABRANCH_RETURN_IF_ERROR(
        HighWaterMark::Create(env, path, {kLibraryFormatVersion, meta.commit_seq}));
  }
  return HighWaterMark::Open(env, path, kLibraryFormatVersion);
}

absl::StatusOr<std::unique_ptr<CommitJournal>> OpenJournal(const LibraryMeta& meta,
                                                           const StoreOptions& options) {
  if (options.journal_bytes == 0 || !options.sync_high_water) return nullptr;
  rocksdb::Env& env = EnvOf(options);
  const std::string path = LibraryFiles(options.directory).journal;
  uint64_t size = 0;
  if (!env.GetFileSize(path, &size).ok() ||
      size != CommitJournal::FileBytes(options.journal_bytes)) {
    ANABRANCH_RETURN_IF_ERROR(CommitJournal::Create(env, path, options.journal_bytes));
  }
  return CommitJournal::Open(env, path, meta.hash_key);
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
  ANABRANCH_ASSIGN_OR_RETURN(LibraryMeta meta, EnsureMeta(*database, options));
  ANABRANCH_RETURN_IF_ERROR(Recover(mark, meta, *database, options));
  ANABRANCH_RETURN_IF_ERROR(AddRetention(*database));
  ANABRANCH_RETURN_IF_ERROR(RaiseFormat(*database, meta.format_version));
  ReachCrashPoint(CrashPoint::kOpenMetaWritten);
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<HighWaterMark> open_mark,
                             OpenMark(mark, meta, options));
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<CommitJournal> journal, OpenJournal(meta, options));
  ANABRANCH_ASSIGN_OR_RETURN(UseByTenant use, ReadUse(Snapshot(*database)));
  return std::make_unique<RocksStateStore>(options, std::move(lock), std::move(database),
                                           std::move(open_mark), std::move(journal), meta.hash_key,
                                           meta.commit_seq, std::move(use));
}

}  // namespace anabranch
