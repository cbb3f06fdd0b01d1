#include "statestore/database.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/iterator.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/rocks_options.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

constexpr uint64_t kRecoveryBytes = 8u << 20;  // besides the size of the logs
constexpr absl::Duration kReadsEndWithin = absl::Seconds(10);

rocksdb::Slice ToSlice(absl::string_view view) { return {view.data(), view.size()}; }
absl::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

class RocksCursor : public Cursor {
 public:
  RocksCursor(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* handle,
              const rocksdb::Snapshot* snapshot, absl::string_view begin, absl::string_view end)
      : begin_(begin), end_(end), end_slice_(end_) {
    rocksdb::ReadOptions read;
    read.snapshot = snapshot;
    read.total_order_seek = true;
    if (!end_.empty()) read.iterate_upper_bound = &end_slice_;
    iterator_.reset(db.NewIterator(read, handle));
  }

  void Seek(absl::string_view key) override {
    iterator_->Seek(ToSlice(std::max<absl::string_view>(key, begin_)));
  }
  void Next() override { iterator_->Next(); }
  bool Valid() const override { return iterator_->Valid(); }
  absl::string_view key() const override { return ToView(iterator_->key()); }
  absl::string_view value() const override { return ToView(iterator_->value()); }
  absl::Status status() const override { return FromRocks(iterator_->status(), "scan"); }

 private:
  const std::string begin_, end_;
  const rocksdb::Slice end_slice_;  // the iterator keeps a pointer to it
  std::unique_ptr<rocksdb::Iterator> iterator_;
};

// RocksDB would begin to wait for space by itself on a full disk; Database opens it anew instead.
class NoRecoveryListener : public rocksdb::EventListener {
 public:
  const char* Name() const override { return "NoRecoveryListener"; }
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status,
                            bool* auto_recovery) override {
    *auto_recovery = false;
  }
};

// No less than what a batch of the changes takes: one that grows copies the large values again.
size_t BatchBytes(const Overlay& changes) {
  constexpr size_t kBatch = 12, kEach = 32;  // kind, family, lengths
  size_t bytes = kBatch;
  for (int i = 0; i < kFamilies; ++i) {
    for (const auto& [key, value] : changes.changes(static_cast<Family>(i))) {
      bytes += kEach + key.size() + (value.has_value() ? value->size() : 0);
    }
  }
  return bytes;
}

// What is in pieces is written from where it lies.
rocksdb::Status AddPut(rocksdb::ColumnFamilyHandle* handle, const std::string& key,
                       const absl::Cord& value, rocksdb::WriteBatch& batch) {
  if (const auto flat = value.TryFlat()) return batch.Put(handle, key, ToSlice(*flat));
  std::vector<rocksdb::Slice> pieces;
  for (const absl::string_view chunk : value.Chunks()) pieces.push_back(ToSlice(chunk));
  const rocksdb::Slice key_slice(key);
  return batch.Put(handle, rocksdb::SliceParts(&key_slice, 1),
                   rocksdb::SliceParts(pieces.data(), static_cast<int>(pieces.size())));
}

rocksdb::FileSystem& FileSystemOf(const StoreOptions& options) {
  return *EnvOf(options).GetFileSystem();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const OpenDatabase>> OpenDatabase::Open(const std::string& directory,
                                                                       const StoreOptions& options,
                                                                       OpenMode mode) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (int i = 0; i < kFamilies; ++i) {
    const Family family = static_cast<Family>(i);
    families.emplace_back(
        FamilyName(family),
        FamilyOptions(family, options, families.empty() ? nullptr : &families.front().options));
  }
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  std::shared_ptr<OpenDatabase> open(new OpenDatabase());
  open->env_ = FailStopEnvironment(EnvOf(options), open->stop_);
  rocksdb::DBOptions db_options = DatabaseOptions(*open->env_, mode == OpenMode::kCreate);
  db_options.listeners.push_back(std::make_shared<NoRecoveryListener>());
  const rocksdb::Status status =
      mode == OpenMode::kInspect
          ? rocksdb::DB::OpenForReadOnly(db_options, directory, families, &handles, &db)
          : rocksdb::DB::Open(db_options, directory, families, &handles, &db);
  open->db_.reset(db);
  std::copy(handles.begin(), handles.end(), open->handles_.begin());
  ANABRANCH_RETURN_IF_ERROR(FromRocks(status, absl::StrCat("opening ", directory)));
  ANABRANCH_RETURN_IF_ERROR(open->DiskStatus());
  open->Written();
  return open;
}

OpenDatabase::~OpenDatabase() {
  if (db_ != nullptr) {
    written_ = nullptr;
    for (rocksdb::ColumnFamilyHandle* handle : handles_) {
      db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
    }
    // Everything acknowledged was synced when it was written: an error here loses nothing.
    db_->Close().PermitUncheckedError();
    db_.reset();
  }
  closed_->Notify();
}

OpenDatabase::View OpenDatabase::Now() const {
  return {db_->GetSnapshot(),
          [db = db_.get()](const rocksdb::Snapshot* taken) { db->ReleaseSnapshot(taken); }};
}

// The disk stops before RocksDB puts into memory what it could not write, so what was taken before
// the question is asked has nothing of that.
OpenDatabase::View OpenDatabase::NewView() const {
  View now = Now();
  if (!stop_->stopped()) return now;
  absl::MutexLock lock(&mutex_);
  return written_;
}

// The one before is released outside the lock, where RocksDB may do more than forget it.
void OpenDatabase::Written() const {
  View now = Now();
  absl::MutexLock lock(&mutex_);
  written_.swap(now);
}

Snapshot::Snapshot(const Database& database) : open_(database.current()), view_(open_->NewView()) {}

absl::Status Snapshot::Get(Family family, absl::string_view key,
                           rocksdb::PinnableSlice* value) const {
  rocksdb::ReadOptions read;
  read.snapshot = view_.get();
  // Payloads and blobs are large and carry checksums of ours, which every read verifies; RocksDB's
  // CRC32C of the same bytes took most of the time of a resume where it is built without SSE 4.2.
  read.verify_checksums = family != Family::kPayloads && family != Family::kBlobs;
  const rocksdb::Status status = open_->db().Get(read, open_->handle(family), ToSlice(key), value);
  if (status.IsNotFound()) return absl::NotFoundError("there is no such key");
  return FromRocks(status, absl::StrCat("reading ", FamilyName(family)));
}

absl::StatusOr<std::optional<std::string>> Snapshot::Get(Family family,
                                                         absl::string_view key) const {
  std::string bytes;
  rocksdb::PinnableSlice value(&bytes);
  const absl::Status status = Get(family, key, &value);
  if (absl::IsNotFound(status)) return std::optional<std::string>();
  ANABRANCH_RETURN_IF_ERROR(status);
  if (value.IsPinned()) bytes.assign(value.data(), value.size());
  return std::optional<std::string>(std::move(bytes));
}

absl::StatusOr<bool> Snapshot::Read(Family family, absl::string_view key,
                                    ValueVisitor visitor) const {
  rocksdb::PinnableSlice value;
  const absl::Status status = Get(family, key, &value);
  if (absl::IsNotFound(status)) return false;
  ANABRANCH_RETURN_IF_ERROR(status);
  visitor(ToView(value));
  return true;
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
  return NewCursor(family, prefix, PrefixEnd(prefix));
}

std::unique_ptr<Cursor> Snapshot::NewCursor(Family family, absl::string_view begin,
                                            absl::string_view end) const {
  return std::make_unique<RocksCursor>(open_->db(), open_->handle(family), view_.get(), begin, end);
}

Database::Database(std::string directory, const StoreOptions& options)
    : directory_(std::move(directory)), options_(options) {}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& directory,
                                                         const StoreOptions& options, Mode mode) {
  ANABRANCH_ASSIGN_OR_RETURN(std::shared_ptr<const OpenDatabase> open,
                             OpenDatabase::Open(directory, options, mode));
  std::unique_ptr<Database> database(new Database(directory, options));
  database->Replace(std::move(open));
  return database;
}

std::shared_ptr<const OpenDatabase> Database::current() const {
  absl::MutexLock lock(&mutex_);
  return current_;
}

// The last reference may go here, and with it the database is closed: not under the lock.
void Database::Replace(std::shared_ptr<const OpenDatabase> next) {
  absl::MutexLock lock(&mutex_);
  current_.swap(next);
}

absl::Status Database::Write(const Overlay& changes, Durability durability) {
  const std::shared_ptr<const OpenDatabase> open = current();
  ANABRANCH_RETURN_IF_ERROR(open->DiskStatus());
  const rocksdb::WriteOptions write = WriteOptionsFor(durability);
  rocksdb::WriteBatch batch(BatchBytes(changes), 0, write.protection_bytes_per_key, 0);
  for (int i = 0; i < kFamilies; ++i) {
    const Family family = static_cast<Family>(i);
    rocksdb::ColumnFamilyHandle* handle = open->handle(family);
    for (const auto& [key, value] : changes.changes(family)) {
      ANABRANCH_RETURN_IF_ERROR(FromRocks(
          value.has_value() ? AddPut(handle, key, *value, batch) : batch.Delete(handle, key),
          "building the batch"));
    }
  }
  const rocksdb::Status written = open->db().Write(write, &batch);
  // First the disk's: RocksDB may not know.
  ANABRANCH_RETURN_IF_ERROR(open->DiskStatus());
  ANABRANCH_RETURN_IF_ERROR(FromRocks(written, "commit"));
  open->Written();
  return absl::OkStatus();
}

// A write that meets a full disk leaves a torn record in the log, and recovery stops at a torn
// record: nothing may be written behind it. Opening anew is what every restart does and every crash
// test exercises. RocksDB's own Resume is not used: in 7.8 it can wait for ever for a flush that
// failed once and is never scheduled again. Meanwhile a read-only database, which needs no space,
// serves the reads; it stays if the disk is full again before the other one is open.
absl::StatusOr<bool> Database::MakeWritable() {
  if (closing_ == nullptr && !current()->met_full_disk()) return false;
  ANABRANCH_RETURN_IF_ERROR(CheckSpaceForRecovery());
  if (closing_ == nullptr) {
    // Or a compaction that still runs could delete a file under the database that is being opened.
    current()->db().DisableFileDeletions().PermitUncheckedError();
    ANABRANCH_ASSIGN_OR_RETURN(std::shared_ptr<const OpenDatabase> readable,
                               OpenDatabase::Open(directory_, options_, Mode::kInspect));
    closing_ = current()->closed();
    Replace(std::move(readable));
    ReachCrashPoint(CrashPoint::kFullDiskReadOnly);
  }
  if (!closing_->WaitForNotificationWithTimeout(kReadsEndWithin)) {
    return absl::ResourceExhaustedError(
        "the disk was full, and a read that began before still runs. Try again");
  }
  ANABRANCH_ASSIGN_OR_RETURN(std::shared_ptr<const OpenDatabase> writable,
                             OpenDatabase::Open(directory_, options_, Mode::kOpen));
  closing_ = nullptr;
  Replace(std::move(writable));
  ReachCrashPoint(CrashPoint::kFullDiskReopened);
  return true;
}

// Recovery writes what is in the logs into tables before it deletes the logs.
absl::Status Database::CheckSpaceForRecovery() const {
  uint64_t needed = kRecoveryBytes;
  std::vector<std::string> names;
  rocksdb::FileSystem& system = FileSystemOf(options_);
  system.GetChildren(directory_, {}, &names, nullptr).PermitUncheckedError();
  for (const std::string& name : names) {
    uint64_t bytes = 0;
    if (!absl::EndsWith(name, ".log")) continue;
    if (system.GetFileSize(directory_ + "/" + name, {}, &bytes, nullptr).ok()) needed += bytes;
  }
  const uint64_t free = FreeBytes();
  if (free >= needed) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the disk is full: ", free, " bytes are free for ", directory_, ", and ", needed,
                   " are needed before anything can be written again"));
}

uint64_t Database::FreeBytes() const {
  uint64_t bytes = 0;
  const rocksdb::IOStatus known =
      FileSystemOf(options_).GetFreeSpace(directory_, {}, &bytes, nullptr);
  return known.ok() ? bytes : std::numeric_limits<uint64_t>::max();
}

int64_t Database::EstimateKeys(Family family) const {
  const std::shared_ptr<const OpenDatabase> open = current();
  uint64_t keys = 0;
  open->db().GetIntProperty(open->handle(family), rocksdb::DB::Properties::kEstimateNumKeys, &keys);
  return static_cast<int64_t>(keys);
}

}  // namespace anabranch
