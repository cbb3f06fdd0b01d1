// One RocksDB database with the library's families. Knows families, keys and bytes; nothing of what
// they mean. Thread rule: any thread may read, also while it is opened anew; one thread writes.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "statestore/fail_stop_files.h"
#include "statestore/key_value.h"
#include "statestore/overlay.h"
#include "statestore/state_store.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class PinnableSlice;
class Snapshot;
}  // namespace rocksdb

namespace anabranch {

class Database;

// How far a write has come when it returns. kSynced: it and all before it survive a power loss.
// kLogged: it survives the process; of what is lost with the power, any part may be missing, so
// it must be durable elsewhere.
enum class Durability { kSynced, kLogged };

// kCreate: a library that is new or whose creation was interrupted. kInspect: changes nothing on
// disk, not even what recovery would; only reads are allowed.
enum class OpenMode { kCreate, kOpen, kInspect };

// An open rocksdb::DB; closed with its last user. Used by Database and Snapshot only.
//
// Once its disk has failed, readers see what was written before, whatever RocksDB has in memory.
class OpenDatabase {
 public:
  using View = std::shared_ptr<const rocksdb::Snapshot>;
  static absl::StatusOr<std::shared_ptr<const OpenDatabase>> Open(const std::string& directory,
                                                                  const StoreOptions& options,
                                                                  OpenMode mode);
  ~OpenDatabase();
  OpenDatabase(const OpenDatabase&) = delete;
  OpenDatabase& operator=(const OpenDatabase&) = delete;

  rocksdb::DB& db() const { return *db_; }
  rocksdb::ColumnFamilyHandle* handle(Family family) const {
    return handles_[static_cast<int>(family)];
  }
  std::vector<rocksdb::ColumnFamilyHandle*> handles() const {
    return {handles_.begin(), handles_.end()};
  }
  // OK unless the disk failed or was full: then nothing can be written, and why.
  absl::Status DiskStatus() const { return stop_->status(); }
  bool met_full_disk() const { return absl::IsResourceExhausted(DiskStatus()); }
  // Opened for a reader that may not outlive this.
  View NewView() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What is in the database was written to its disk.
  void Written() const ABSL_LOCKS_EXCLUDED(mutex_);
  const std::shared_ptr<absl::Notification>& closed() const { return closed_; }

 private:
  OpenDatabase() = default;
  View Now() const;

  const std::shared_ptr<FailStop> stop_ = std::make_shared<FailStop>();
  const std::shared_ptr<absl::Notification> closed_ = std::make_shared<absl::Notification>();
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<rocksdb::DB> db_;
  std::array<rocksdb::ColumnFamilyHandle*, kFamilies> handles_{};
  mutable absl::Mutex mutex_;
  mutable View written_ ABSL_GUARDED_BY(mutex_);
};

// The database as it was when the snapshot was taken. Short-lived: opening the database anew waits
// for those that are left.
class Snapshot : public KeyValueReader {
 public:
  explicit Snapshot(const Database& database);
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  absl::StatusOr<std::optional<std::string>> Get(Family family,
                                                 absl::string_view key) const override;
  absl::StatusOr<bool> Read(Family family, absl::string_view key,
                            ValueVisitor visitor) const override;
  absl::Status Scan(Family family, absl::string_view prefix, absl::string_view from,
                    Visitor visitor) const override;
  // Starts invalid: Seek first. The keys outside `prefix` are not seen.
  std::unique_ptr<Cursor> NewCursor(Family family, absl::string_view prefix) const;
  // Nor are those before `begin`, and from `end` (empty: the last one) on; nor are values there
  // read.
  std::unique_ptr<Cursor> NewCursor(Family family, absl::string_view begin,
                                    absl::string_view end) const;

 private:
  // NOT_FOUND if there is no such key.
  absl::Status Get(Family family, absl::string_view key, rocksdb::PinnableSlice* value) const;

  const std::shared_ptr<const OpenDatabase> open_;
  const OpenDatabase::View view_;
};

class Database {
 public:
  using Mode = OpenMode;
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& directory,
                                                        const StoreOptions& options, Mode mode);
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Call before each write. Once the disk was full, this opens the database anew, which leaves the
  // torn log behind; reads go on meanwhile, and if it fails. True: it was opened anew, and may have
  // the changes of the write that met the full disk. Errors as for Write.
  absl::StatusOr<bool> MakeWritable();
  // Writes all changes or none. RESOURCE_EXHAUSTED if the disk is full. Any other error is final:
  // nothing may be written any more. Readers do not see a write that failed.
  absl::Status Write(const Overlay& changes, Durability durability = Durability::kSynced);

  // The open database, which stays open while it is held: opening it anew waits for it. For backup.
  std::shared_ptr<const OpenDatabase> Pin() const { return current(); }

  // Bytes that the disk has left for the database; the largest number if the system does not say.
  uint64_t FreeBytes() const;
  // RocksDB's estimate of the live keys of a family.
  int64_t EstimateKeys(Family family) const;

  // The files of tables and of values, sorted by name, with the checksum that each was given when
  // it was written (database_files.cc).
  struct StoredFile {
    std::string name, checksum;
    uint64_t bytes = 0;
  };
  std::vector<StoredFile> Files() const;
  // Reads the whole file. DATA_LOSS if it is not as it was written; NOT_FOUND if it is gone, which
  // is no fault: compaction replaces files.
  absl::Status CheckFile(const StoredFile& file) const;

  // Space (database_space.cc); any thread, one at a time. CANCELLED if keep_going says so.
  struct ValueFiles {
    uint64_t bytes = 0, dead_bytes = 0;  // of payloads and blobs; dead as far as compactions know
  };
  ValueFiles value_files() const;
  // Writes what is in memory into tables.
  absl::Status Flush();
  // Drops what was deleted or replaced from the tables of a family.
  absl::Status Compact(Family family, const KeepGoing& keep_going);
  // Moves what is alive out of the oldest files of values, so that these go.
  absl::Status RewriteOldestValues(const KeepGoing& keep_going);

 private:
  friend class Snapshot;
  Database(std::string directory, const StoreOptions& options);
  std::shared_ptr<const OpenDatabase> current() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Reads use `next` from now on.
  void Replace(std::shared_ptr<const OpenDatabase> next) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckSpaceForRecovery() const;

  const std::string directory_;
  const StoreOptions options_;
  // The writer's own. Set while a database that could be written to is being closed.
  std::shared_ptr<absl::Notification> closing_;
  mutable absl::Mutex mutex_;
  std::shared_ptr<const OpenDatabase> current_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch
