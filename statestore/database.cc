#include "statestore/database.h"

#include <rocksdb/db.h>
#include <rocksdb/iterator.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/rocks_options.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

rocksdb::Slice ToSlice(absl::string_view view) { return {view.data(), view.size()}; }
absl::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

class RocksCursor : public Cursor {
 public:
  RocksCursor(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* handle,
              const rocksdb::Snapshot* snapshot, absl::string_view prefix)
      : prefix_(prefix), end_(PrefixEnd(prefix)), end_slice_(end_) {
    rocksdb::ReadOptions read;
    read.snapshot = snapshot;
    read.total_order_seek = true;
    if (!end_.empty()) read.iterate_upper_bound = &end_slice_;
    iterator_.reset(db.NewIterator(read, handle));
  }

  void Seek(absl::string_view key) override {
    iterator_->Seek(ToSlice(std::max<absl::string_view>(key, prefix_)));
  }
  void Next() override { iterator_->Next(); }
  bool Valid() const override { return iterator_->Valid(); }
  absl::string_view key() const override { return ToView(iterator_->key()); }
  absl::string_view value() const override { return ToView(iterator_->value()); }
  absl::Status status() const override { return FromRocks(iterator_->status(), "scan"); }

 private:
  const std::string prefix_, end_;
  const rocksdb::Slice end_slice_;  // the iterator keeps a pointer to it
  std::unique_ptr<rocksdb::Iterator> iterator_;
};

}  // namespace

Snapshot::Snapshot(const Database& database)
    : database_(database), snapshot_(database.db_->GetSnapshot()) {}

Snapshot::~Snapshot() { database_.db_->ReleaseSnapshot(snapshot_); }

absl::StatusOr<std::optional<std::string>> Snapshot::Get(Family family,
                                                         absl::string_view key) const {
  rocksdb::ReadOptions read;
  read.snapshot = snapshot_;
  // Payloads and blobs are large and carry checksums of ours, which every read verifies; RocksDB's
  // CRC32C of the same bytes took most of the time of a resume where it is built without SSE 4.2.
  read.verify_checksums = family != Family::kPayloads && family != Family::kBlobs;
  std::string value;
  const rocksdb::Status status =
      database_.db_->Get(read, database_.handle(family), ToSlice(key), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  ANABRANCH_RETURN_IF_ERROR(FromRocks(status, absl::StrCat("reading ", FamilyName(family))));
  return std::optional<std::string>(std::move(value));
}

absl::Status Snapshot::Scan(Family family, absl::string_view prefix, absl::string_view from,
                            Visitor visitor) const {
  const std::unique_ptr<Cursor> cursor = NewCursor(family, prefix);
  for (cursor->Seek(from); cursor->Valid(); cursor->Next()) {
    if (!visitor(cursor->key(), cursor->value())) return absl::OkStatus();
  }
  return cursor->status();
}

std::unique_ptr<Cursor> Snapshot::NewCursor(Family family, absl::string_view prefix) const {
  return std::make_unique<RocksCursor>(*database_.db_, database_.handle(family), snapshot_, prefix);
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& directory,
                                                         const StoreOptions& options, Mode mode) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (int i = 0; i < kFamilies; ++i) {
    const Family family = static_cast<Family>(i);
    families.emplace_back(
        FamilyName(family),
        FamilyOptions(family, options, families.empty() ? nullptr : &families.front().options));
  }
  std::unique_ptr<Database> database(new Database());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  const rocksdb::DBOptions db_options = DatabaseOptions(options, mode == Mode::kCreate);
  const rocksdb::Status status =
      mode == Mode::kInspect
          ? rocksdb::DB::OpenForReadOnly(db_options, directory, families, &handles, &db)
          : rocksdb::DB::Open(db_options, directory, families, &handles, &db);
  ANABRANCH_RETURN_IF_ERROR(FromRocks(status, absl::StrCat("opening ", directory)));
  database->db_.reset(db);
  std::copy(handles.begin(), handles.end(), database->handles_.begin());
  return database;
}

Database::~Database() {
  if (db_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  // Everything acknowledged was synced when it was written: an error here loses nothing.
  db_->Close().PermitUncheckedError();
}

absl::Status Database::Write(const Overlay& changes) {
  ANABRANCH_RETURN_IF_ERROR(KeepSomethingInMemory());
  const rocksdb::WriteOptions write = DurableWrite();
  rocksdb::WriteBatch batch(0, 0, write.protection_bytes_per_key, 0);
  for (int i = 0; i < kFamilies; ++i) {
    const Family family = static_cast<Family>(i);
    for (const auto& [key, value] : changes.changes(family)) {
      ANABRANCH_RETURN_IF_ERROR(FromRocks(value.has_value() ? batch.Put(handle(family), key, *value)
                                                            : batch.Delete(handle(family), key),
                                          "building the batch"));
    }
  }
  return FromRocks(db_->Write(write, &batch), "commit");
}

// A write that meets a full disk leaves a torn record in the WAL, and recovery stops at a torn
// record: what is committed behind it later would be lost. RocksDB's Resume begins a new WAL only
// if a memtable holds something to flush. So one always does: a key without meaning, not logged.
absl::Status Database::KeepSomethingInMemory() {
  uint64_t entries = 0;
  db_->GetIntProperty(handle(Family::kMeta), rocksdb::DB::Properties::kNumEntriesActiveMemTable,
                      &entries);
  if (entries > 0) return absl::OkStatus();
  rocksdb::WriteOptions unlogged;
  unlogged.disableWAL = true;
  return FromRocks(db_->Put(unlogged, handle(Family::kMeta), "in_memory", ""), "commit");
}

// The flush after Resume fails if the WAL is still the torn one, because its writer remembers its
// error: then nothing may be written until the library is opened again.
absl::Status Database::Resume() {
  constexpr absl::string_view kWhat = "resume after a full disk";
  ANABRANCH_RETURN_IF_ERROR(FromRocks(db_->Resume(), kWhat));
  ANABRANCH_RETURN_IF_ERROR(KeepSomethingInMemory());
  return FromRocks(db_->Flush(rocksdb::FlushOptions(), handle(Family::kMeta)), kWhat);
}

int64_t Database::EstimateKeys(Family family) const {
  uint64_t keys = 0;
  db_->GetIntProperty(handle(family), rocksdb::DB::Properties::kEstimateNumKeys, &keys);
  return static_cast<int64_t>(keys);
}

}  // namespace anabranch
