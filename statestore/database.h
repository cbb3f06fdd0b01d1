// One RocksDB database with the library's families. Knows families, keys and bytes; nothing of what
// they mean. Thread rule: any thread may read; one thread writes.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "statestore/key_value.h"
#include "statestore/overlay.h"
#include "statestore/state_store.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
class Env;
class Snapshot;
}  // namespace rocksdb

namespace anabranch {

class Database;

// The database as it was when the snapshot was taken. Must not outlive its database.
class Snapshot : public KeyValueReader {
 public:
  explicit Snapshot(const Database& database);
  ~Snapshot() override;
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  absl::StatusOr<std::optional<std::string>> Get(Family family,
                                                 absl::string_view key) const override;
  absl::Status Scan(Family family, absl::string_view prefix, absl::string_view from,
                    Visitor visitor) const override;
  // Starts invalid: Seek first. The keys outside `prefix` are not seen.
  std::unique_ptr<Cursor> NewCursor(Family family, absl::string_view prefix) const;

 private:
  const Database& database_;
  const rocksdb::Snapshot* snapshot_;
};

class Database {
 public:
  // kCreate: a library that is new or whose creation was interrupted. kInspect: changes nothing on
  // disk, not even what recovery would; only reads are allowed.
  enum class Mode { kCreate, kOpen, kInspect };
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& directory,
                                                        const StoreOptions& options, Mode mode);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Writes all changes or none; on OK they are synced. RESOURCE_EXHAUSTED if the disk is full: call
  // Resume before the next write. Any other error is final: nothing may be written any more.
  absl::Status Write(const Overlay& changes);
  // After a full disk: makes the database writable again, with a fresh WAL. OK if it is; otherwise
  // as Write.
  absl::Status Resume();

  // RocksDB's estimate of the live keys of a family.
  int64_t EstimateKeys(Family family) const;

 private:
  friend class Snapshot;
  Database() = default;
  absl::Status KeepSomethingInMemory();
  rocksdb::ColumnFamilyHandle* handle(Family family) const {
    return handles_[static_cast<int>(family)];
  }

  std::unique_ptr<rocksdb::DB> db_;
  std::array<rocksdb::ColumnFamilyHandle*, kFamilies> handles_{};
};

}  // namespace anabranch
