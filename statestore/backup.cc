#include "statestore/backup.h"

#include <rocksdb/db.h>
#include <rocksdb/utilities/backup_engine.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <system_error>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "statestore/backup_manifest.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/database.h"
#include "statestore/high_water_mark.h"
#include "statestore/library_files.h"
#include "statestore/library_lock.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

constexpr uint64_t kProgressBytes = 4u << 20;

using Engine = std::unique_ptr<rocksdb::BackupEngine>;
using Reader = std::unique_ptr<rocksdb::BackupEngineReadOnly>;

absl::Status Cancelled() { return absl::CancelledError("the backup was cancelled"); }

bool GoesOn(const BackupObserver& observer, const BackupProgress& progress) {
  return observer == nullptr || observer(progress);
}

rocksdb::BackupEngineOptions EngineOptions(const std::string& directory) {
  rocksdb::BackupEngineOptions options(directory);
  options.callback_trigger_interval_size = kProgressBytes;
  return options;
}

absl::StatusOr<Engine> OpenEngine(const BackupRequest& request) {
  rocksdb::BackupEngineOptions options = EngineOptions(request.directory);
  options.backup_rate_limit = request.max_bytes_per_second;
  rocksdb::BackupEngine* engine = nullptr;
  const rocksdb::Status opened =
      rocksdb::BackupEngine::Open(options, rocksdb::Env::Default(), &engine);
  ANABRANCH_RETURN_IF_ERROR(FromRocks(opened, request.directory));
  return Engine(engine);
}

absl::StatusOr<Reader> OpenReader(const std::string& directory) {
  std::error_code error;
  if (!std::filesystem::is_directory(directory + "/meta", error)) {
    return absl::NotFoundError(absl::StrCat(directory, " holds no backups"));
  }
  rocksdb::BackupEngineReadOnly* engine = nullptr;
  const rocksdb::Status opened = rocksdb::BackupEngineReadOnly::Open(
      EngineOptions(directory), rocksdb::Env::Default(), &engine);
  ANABRANCH_RETURN_IF_ERROR(FromRocks(opened, directory));
  return Reader(engine);
}

std::string WhyInterrupted() { return "it was interrupted before it was verified"; }

// RocksDB's view joined with the manifests, by id.
std::map<int64_t, BackupInfo> AllBackups(const rocksdb::BackupEngineReadOnlyBase& engine,
                                         const std::string& directory) {
  std::map<int64_t, BackupInfo> all;
  std::vector<rocksdb::BackupInfo> known;
  engine.GetBackupInfo(&known);
  for (const rocksdb::BackupInfo& each : known) {
    BackupInfo& info = all[each.backup_id];
    info.id = each.backup_id;
    info.created = absl::FromUnixSeconds(each.timestamp);
    info.size_bytes = each.size;
    info.problem = WhyInterrupted();
  }
  for (const int64_t id : BackupManifests(directory)) {
    const bool described = all.contains(id);
    absl::StatusOr<BackupInfo> manifest = ReadBackupManifest(directory, id);
    if (manifest.ok()) {
      all[id] = *manifest;
      if (!described) all[id].problem = "some of its files are missing or have other sizes";
    } else {
      all[id].id = id;
      all[id].problem = std::string(manifest.status().message());
    }
  }
  return all;
}

absl::StatusOr<BackupLocation> Locate(const rocksdb::BackupEngineReadOnlyBase& engine, int64_t id) {
  rocksdb::BackupInfo info;
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(engine.GetBackupInfo(static_cast<rocksdb::BackupID>(id), &info, true), "backup"));
  return BackupLocation{info.env_for_open, info.name_for_open};
}

// Opens a backup where it lies, without changing it, and compares what it holds with what is
// expected.
absl::StatusOr<LibraryMeta> Inspect(const rocksdb::BackupEngineReadOnlyBase& engine, int64_t id,
                                    int64_t* states) {
  ANABRANCH_ASSIGN_OR_RETURN(const BackupLocation copy, Locate(engine, id));
  StoreOptions options;
  options.env = copy.env.get();
  options.block_cache_bytes = 8u << 20;
  ANABRANCH_ASSIGN_OR_RETURN(const std::unique_ptr<Database> database,
                             Database::Open(copy.name, options, Database::Mode::kInspect));
  if (states != nullptr) *states = database->EstimateKeys(Family::kStates);
  return ReadLibraryMeta(*database);
}

absl::Status VerifyFiles(const rocksdb::BackupEngineReadOnlyBase& engine, int64_t id) {
  const rocksdb::Status verified =
      engine.VerifyBackup(static_cast<rocksdb::BackupID>(id), /*verify_with_checksum=*/true);
  if (verified.ok()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("backup ", id, ": ", verified.ToString()));
}

// Backups that were interrupted, and any that `keep` has no room for. The manifest goes first, so
// that what is half deleted counts as interrupted.
absl::Status Remove(rocksdb::BackupEngine& engine, const std::string& directory, int64_t id) {
  ANABRANCH_RETURN_IF_ERROR(RemoveBackupManifest(directory, id));
  const rocksdb::Status removed = engine.DeleteBackup(static_cast<rocksdb::BackupID>(id));
  if (removed.IsNotFound()) return absl::OkStatus();
  return FromRocks(removed, absl::StrCat("deleting backup ", id));
}

absl::Status RemoveInterrupted(rocksdb::BackupEngine& engine, const std::string& directory,
                               const std::string& library_id) {
  for (const auto& [id, info] : AllBackups(engine, directory)) {
    if (!info.library_id.empty() && info.library_id != library_id) {
      return absl::FailedPreconditionError(absl::StrCat(
          directory, " holds backups of another library: use a directory of its own for each"));
    }
    if (info.problem == WhyInterrupted()) {
      ANABRANCH_RETURN_IF_ERROR(Remove(engine, directory, id));
      ReachCrashPoint(CrashPoint::kBackupInterruptedRemoved);
    }
  }
  return absl::OkStatus();
}

absl::Status RemoveOldest(rocksdb::BackupEngine& engine, const std::string& directory, int keep) {
  if (keep <= 0) return absl::OkStatus();
  std::vector<int64_t> complete;
  for (const auto& [id, info] : AllBackups(engine, directory)) {
    if (info.problem.empty()) complete.push_back(id);
  }
  for (size_t i = 0; i + keep < complete.size(); ++i) {
    ANABRANCH_RETURN_IF_ERROR(Remove(engine, directory, complete[i]));
    ReachCrashPoint(CrashPoint::kBackupOldestRemoved);
  }
  return absl::OkStatus();
}

// Bytes under a directory; files may come and go meanwhile.
uint64_t BytesUnder(const std::string& directory) {
  uint64_t bytes = 0;
  std::error_code error;
  std::filesystem::recursive_directory_iterator file(directory, error), end;
  for (; !error && file != end; file.increment(error)) {
    std::error_code gone;
    const uint64_t size = file->is_regular_file(gone) ? file->file_size(gone) : 0;
    if (!gone) bytes += size;
  }
  return bytes;
}

absl::StatusOr<int64_t> Copy(rocksdb::BackupEngine& engine, const Database& database,
                             const BackupRequest& request) {
  // Held open until the copy is done; if the disk of the library is full meanwhile, it has to be
  // opened anew, and that comes first.
  const std::shared_ptr<const OpenDatabase> open = database.Pin();
  ANABRANCH_RETURN_IF_ERROR(open->DiskStatus());
  uint64_t total = 0;
  open->db().GetAggregatedIntProperty(rocksdb::DB::Properties::kLiveSstFilesSize, &total);
  uint64_t blobs = 0;
  open->db().GetAggregatedIntProperty(rocksdb::DB::Properties::kLiveBlobFileSize, &blobs);
  total += blobs;
  std::atomic<uint64_t> done = 0;
  std::atomic<bool> cancelled = false, full = false;
  rocksdb::CreateBackupOptions options;
  // What is in memory goes into tables, which later backups share; the log would be copied again.
  options.flush_before_backup = true;
  options.progress_callback = [&] {
    done += kProgressBytes;
    full = full || open->met_full_disk();
    if (!GoesOn(request.observer, {"copying", done, std::max<uint64_t>(total, done)})) {
      cancelled = true;
    }
    if (cancelled || full) engine.StopBackup();
  };
  rocksdb::BackupID id = 0;
  const rocksdb::Status copied = engine.CreateNewBackup(options, &open->db(), &id);
  if (cancelled) return Cancelled();
  if (full) return absl::ResourceExhaustedError("the disk of the library is full");
  // RocksDB may have taken for written what is not.
  ANABRANCH_RETURN_IF_ERROR(open->DiskStatus());
  ANABRANCH_RETURN_IF_ERROR(FromRocks(copied, "backup"));
  return id;
}

// The newest complete one for 0. NOT_FOUND names what there is.
absl::StatusOr<BackupInfo> Find(const rocksdb::BackupEngineReadOnlyBase& engine,
                                const std::string& directory, int64_t id) {
  const std::map<int64_t, BackupInfo> all = AllBackups(engine, directory);
  for (auto each = all.rbegin(); each != all.rend(); ++each) {
    if (id == 0 ? !each->second.problem.empty() : each->first != id) continue;
    if (each->second.problem.empty()) return each->second;
    return absl::DataLossError(absl::StrCat("backup ", id, ": ", each->second.problem));
  }
  return absl::NotFoundError(id == 0 ? absl::StrCat(directory, " holds no complete backup")
                                     : absl::StrCat(directory, " holds no backup ", id));
}

absl::Status VerifyFound(const rocksdb::BackupEngineReadOnlyBase& engine, const BackupInfo& info) {
  ANABRANCH_RETURN_IF_ERROR(VerifyFiles(engine, info.id));
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta meta, Inspect(engine, info.id, nullptr));
  if (meta.commit_seq == info.commit_seq && meta.library_id == info.library_id) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat("backup ", info.id, " holds commits up to ",
                                          meta.commit_seq, " instead of ", info.commit_seq));
}

std::string Unfinished(const LibraryFiles& files) { return files.database + ".restoring"; }

// Nothing but what an interrupted restore leaves may be there: a mark belongs to it only while its
// database has not got its name.
absl::Status CheckTarget(const LibraryFiles& files, const std::string& target) {
  std::error_code error;
  std::filesystem::create_directories(target, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot create ", target, ": ", error.message()));
  }
  const bool interrupted = std::filesystem::exists(Unfinished(files), error) &&
                           !std::filesystem::exists(files.database, error);
  for (const auto& entry : std::filesystem::directory_iterator(target, error)) {
    const std::string name = entry.path().filename();
    const bool of_mark = absl::StartsWith(entry.path().string(), files.mark);
    if (name == "LOCK" || entry.path() == Unfinished(files) || (interrupted && of_mark)) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(target, " is not empty: it has ", name, ". Restore into a new directory"));
  }
  return absl::OkStatus();
}

// Calls the observer while `work` runs. RocksDB does not say how far a restore is.
template <typename Work>
void WithProgress(const BackupObserver& observer, const std::string& directory, uint64_t total,
                  Work work) {
  absl::Notification done;
  std::thread watcher([&] {
    while (!done.WaitForNotificationWithTimeout(absl::Milliseconds(500))) {
      if (observer) observer({"copying", std::min(BytesUnder(directory), total), total});
    }
  });
  work();
  done.Notify();
  watcher.join();
}

}  // namespace

absl::StatusOr<BackupInfo> CreateBackup(const Database& database, uint64_t expected_seq,
                                        const BackupRequest& request) {
  std::error_code error;
  std::filesystem::create_directories(request.directory, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot create ", request.directory, ": ", error.message()));
  }
  ANABRANCH_ASSIGN_OR_RETURN(const std::unique_ptr<LibraryLock> lock,
                             LibraryLock::Acquire(*rocksdb::Env::Default(), request.directory));
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta own, ReadLibraryMeta(database));
  ANABRANCH_ASSIGN_OR_RETURN(const Engine engine, OpenEngine(request));
  ANABRANCH_RETURN_IF_ERROR(RemoveInterrupted(*engine, request.directory, own.library_id));
  const uint64_t before = BytesUnder(request.directory);
  BackupInfo info;
  ANABRANCH_ASSIGN_OR_RETURN(info.id, Copy(*engine, database, request));
  ReachCrashPoint(CrashPoint::kBackupCopied);
  info.new_bytes = BytesUnder(request.directory) - before;
  info.created = absl::Now();
  rocksdb::BackupInfo described;
  ANABRANCH_RETURN_IF_ERROR(FromRocks(
      engine->GetBackupInfo(static_cast<rocksdb::BackupID>(info.id), &described), "backup"));
  info.size_bytes = described.size;
  if (!GoesOn(request.observer, {"verifying", 0, info.size_bytes})) return Cancelled();
  ANABRANCH_RETURN_IF_ERROR(VerifyFiles(*engine, info.id));
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta copy, Inspect(*engine, info.id, &info.states));
  if (copy.commit_seq < expected_seq || copy.library_id != own.library_id) {
    return absl::DataLossError(absl::StrCat("the copy holds commits up to ", copy.commit_seq,
                                            ", but ", expected_seq, " was acknowledged before"));
  }
  info.commit_seq = copy.commit_seq;
  info.library_id = copy.library_id;
  ReachCrashPoint(CrashPoint::kBackupVerified);
  ANABRANCH_RETURN_IF_ERROR(WriteBackupManifest(request.directory, info));
  ReachCrashPoint(CrashPoint::kBackupComplete);
  ANABRANCH_RETURN_IF_ERROR(RemoveOldest(*engine, request.directory, request.keep));
  return info;
}

absl::StatusOr<std::vector<BackupInfo>> ListBackups(const std::string& directory) {
  ANABRANCH_ASSIGN_OR_RETURN(const Reader engine, OpenReader(directory));
  std::vector<BackupInfo> newest_first;
  const std::map<int64_t, BackupInfo> all = AllBackups(*engine, directory);
  for (auto each = all.rbegin(); each != all.rend(); ++each) newest_first.push_back(each->second);
  return newest_first;
}

absl::StatusOr<BackupInfo> VerifyBackup(const std::string& directory, int64_t id) {
  ANABRANCH_ASSIGN_OR_RETURN(const Reader engine, OpenReader(directory));
  ANABRANCH_ASSIGN_OR_RETURN(const BackupInfo info, Find(*engine, directory, id));
  ANABRANCH_RETURN_IF_ERROR(VerifyFound(*engine, info));
  return info;
}

absl::StatusOr<BackupLocation> LocateBackup(const std::string& directory, int64_t id) {
  ANABRANCH_ASSIGN_OR_RETURN(const Reader engine, OpenReader(directory));
  ANABRANCH_ASSIGN_OR_RETURN(const BackupInfo info, Find(*engine, directory, id));
  return Locate(*engine, info.id);
}

absl::StatusOr<BackupInfo> RestoreBackup(const std::string& directory, int64_t id,
                                         const std::string& target,
                                         const BackupObserver& observer) {
  rocksdb::Env& env = *rocksdb::Env::Default();
  ANABRANCH_ASSIGN_OR_RETURN(const Reader engine, OpenReader(directory));
  ANABRANCH_ASSIGN_OR_RETURN(const BackupInfo info, Find(*engine, directory, id));
  const LibraryFiles files(target);
  ANABRANCH_RETURN_IF_ERROR(CheckTarget(files, target));
  ANABRANCH_ASSIGN_OR_RETURN(const std::unique_ptr<LibraryLock> lock,
                             LibraryLock::Acquire(env, target));
  if (!GoesOn(observer, {"verifying", 0, info.size_bytes})) return Cancelled();
  ANABRANCH_RETURN_IF_ERROR(VerifyFound(*engine, info));
  const std::string unfinished = Unfinished(files);
  std::error_code error;
  std::filesystem::remove_all(unfinished, error);
  rocksdb::Status restored;
  WithProgress(observer, unfinished, info.size_bytes, [&] {
    restored = engine->RestoreDBFromBackup(static_cast<rocksdb::BackupID>(info.id), unfinished,
                                           unfinished);
  });
  ANABRANCH_RETURN_IF_ERROR(FromRocks(restored, "restoring"));
  ANABRANCH_RETURN_IF_ERROR(SyncAllIn(unfinished));
  ReachCrashPoint(CrashPoint::kRestoreCopied);
  ANABRANCH_RETURN_IF_ERROR(
      HighWaterMark::Create(env, files.mark, {kLibraryFormatVersion, info.commit_seq}));
  ReachCrashPoint(CrashPoint::kRestoreMarked);
  // Last: with its database the library exists, and holds exactly what the mark says.
  ANABRANCH_RETURN_IF_ERROR(FromRocks(env.RenameFile(unfinished, files.database), target));
  ReachCrashPoint(CrashPoint::kRestoreRenamed);
  ANABRANCH_RETURN_IF_ERROR(SyncDirectory(target));
  return info;
}

}  // namespace anabranch
