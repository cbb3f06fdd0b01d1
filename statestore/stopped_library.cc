#include "statestore/stopped_library.h"

#include <rocksdb/env.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "statestore/backup.h"
#include "statestore/base/status_macros.h"
#include "statestore/commit_journal.h"
#include "statestore/database.h"
#include "statestore/high_water_mark.h"
#include "statestore/library_files.h"
#include "statestore/library_lock.h"
#include "statestore/prefix_index.h"

namespace anabranch {
namespace {

constexpr uint64_t kCacheBytes = 8u << 20;

absl::Status CheckMeta(const LibraryMeta& meta, const std::string& directory) {
  if (!meta.readable()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the library ", directory, " has format version ", meta.format_version,
                     "; this build reads version ", kDatabaseFormatVersion));
  }
  if (meta.hash_key.size() == PrefixHasher::kKeyBytes) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the library ", directory, " lost its hash key"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoppedLibrary>> StoppedLibrary::Open(const std::string& directory) {
  const LibraryFiles files(directory);
  rocksdb::Env& env = *rocksdb::Env::Default();
  ANABRANCH_ASSIGN_OR_RETURN(const HighWaterContents mark, HighWaterMark::Read(env, files.mark));
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<LibraryLock> lock,
                             LibraryLock::Acquire(env, directory));
  StoreOptions options;
  options.block_cache_bytes = kCacheBytes;
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                             Database::Open(files.database, options, Database::Mode::kInspect));
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta meta, ReadLibraryMeta(*database));
  ANABRANCH_RETURN_IF_ERROR(CheckMeta(meta, directory));
  if (meta.commit_seq < mark.commit_seq) {
    return absl::DataLossError(absl::StrCat("the library ", directory,
                                            " acknowledged commits up to ", mark.commit_seq,
                                            ", but holds only those up to ", meta.commit_seq));
  }
  ANABRANCH_ASSIGN_OR_RETURN(
      const JournalContents journal,
      CommitJournal::Read(env, files.journal, meta.hash_key, mark.commit_seq));
  if (meta.commit_seq < journal.newest_seq) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the last commits of the library ", directory, ", ", meta.commit_seq + 1, " to ",
        journal.newest_seq, ", are in its journal alone: start a server on it once"));
  }
  return std::unique_ptr<StoppedLibrary>(
      new StoppedLibrary(nullptr, std::move(lock), std::move(database), meta));
}

absl::StatusOr<std::unique_ptr<StoppedLibrary>> StoppedLibrary::OpenBackup(
    const std::string& directory, int64_t id) {
  ANABRANCH_ASSIGN_OR_RETURN(BackupLocation copy, LocateBackup(directory, id));
  StoreOptions options;
  options.env = copy.env.get();
  options.block_cache_bytes = kCacheBytes;
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                             Database::Open(copy.name, options, Database::Mode::kInspect));
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta meta, ReadLibraryMeta(*database));
  ANABRANCH_RETURN_IF_ERROR(CheckMeta(meta, directory));
  return std::unique_ptr<StoppedLibrary>(
      new StoppedLibrary(std::move(copy.env), nullptr, std::move(database), meta));
}

StoppedLibrary::StoppedLibrary(std::shared_ptr<rocksdb::Env> env, std::unique_ptr<LibraryLock> lock,
                               std::unique_ptr<Database> database, const LibraryMeta& meta)
    : env_(std::move(env)),
      lock_(std::move(lock)),
      database_(std::move(database)),
      hasher_(std::make_unique<PrefixHasher>(meta.hash_key)),
      commit_seq_(meta.commit_seq) {}

StoppedLibrary::~StoppedLibrary() = default;

int64_t StoppedLibrary::states() const { return database_->EstimateKeys(Family::kStates); }

absl::StatusOr<ScrubStep> StoppedLibrary::Next(const std::string& from, uint64_t max_bytes) const {
  return ScrubNext(*database_, *hasher_, from, max_bytes);
}

}  // namespace anabranch
