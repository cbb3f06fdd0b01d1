// Giving the disk back what deleted values took.
//
// Values of payloads and blobs lie in files of their own (BlobDB). A file goes once nothing in it
// is alive; otherwise what is alive in it has to move. Compaction finds out what is dead, and moves
// what is alive out of the oldest part of the files if asked to.
#include <rocksdb/db.h>
#include <rocksdb/metadata.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "statestore/base/status_macros.h"
#include "statestore/database.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

constexpr Family kValueFamilies[] = {Family::kPayloads, Family::kBlobs};
constexpr absl::Duration kAskEvery = absl::Milliseconds(100);
// The part of the files that one rewrite empties; all of them if there are few.
constexpr double kOldestPart = 0.25;
constexpr size_t kFewFiles = 4;

absl::Status RunCompaction(const OpenDatabase& open, Family family,
                           rocksdb::CompactRangeOptions compact, const KeepGoing& keep_going) {
  ANABRANCH_RETURN_IF_ERROR(open.DiskStatus());
  std::atomic<bool> canceled{false};
  compact.canceled = &canceled;
  compact.exclusive_manual_compaction = false;
  absl::Notification done;
  std::thread asker([&] {
    while (!done.WaitForNotificationWithTimeout(kAskEvery)) {
      if (keep_going && !keep_going()) canceled = true;
      if (!open.DiskStatus().ok()) canceled = true;
    }
  });
  const rocksdb::Status status =
      open.db().CompactRange(compact, open.handle(family), nullptr, nullptr);
  done.Notify();
  asker.join();
  if (canceled && !status.ok()) {
    return absl::CancelledError("the garbage collection was stopped; what it did stays done");
  }
  return FromRocks(status, absl::StrCat("compacting ", FamilyName(family)));
}

rocksdb::ColumnFamilyMetaData FilesOf(const OpenDatabase& open, Family family) {
  rocksdb::ColumnFamilyMetaData files;
  open.db().GetColumnFamilyMetaData(open.handle(family), &files);
  return files;
}

}  // namespace

Database::ValueFiles Database::value_files() const {
  const std::shared_ptr<const OpenDatabase> open = current();
  ValueFiles files;
  for (const Family family : kValueFamilies) {
    for (const rocksdb::BlobMetaData& file : FilesOf(*open, family).blob_files) {
      files.bytes += file.blob_file_size;
      files.dead_bytes += file.garbage_blob_bytes;
    }
  }
  return files;
}

absl::Status Database::Flush() {
  const std::shared_ptr<const OpenDatabase> open = current();
  rocksdb::FlushOptions flush;
  flush.allow_write_stall = false;  // wait rather than make writers wait
  ANABRANCH_RETURN_IF_ERROR(open->DiskStatus());
  return FromRocks(open->db().Flush(flush, open->handles()), "flush");
}

absl::Status Database::Compact(Family family, const KeepGoing& keep_going) {
  const std::shared_ptr<const OpenDatabase> open = current();
  rocksdb::CompactRangeOptions compact;
  compact.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kDisable;
  return RunCompaction(*open, family, compact, keep_going);
}

absl::Status Database::RewriteOldestValues(const KeepGoing& keep_going) {
  const std::shared_ptr<const OpenDatabase> open = current();
  for (const Family family : kValueFamilies) {
    const rocksdb::ColumnFamilyMetaData files = FilesOf(*open, family);
    uint64_t live = 0, dead = 0;
    for (const rocksdb::BlobMetaData& file : files.blob_files) {
      live += file.total_blob_bytes - file.garbage_blob_bytes;
      dead += file.garbage_blob_bytes;
    }
    if (dead == 0) continue;
    const double part = files.blob_files.size() <= kFewFiles ? 1.0 : kOldestPart;
    const uint64_t needed = static_cast<uint64_t>(part * static_cast<double>(live));
    if (FreeBytes() < needed + options_.reserved_disk_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("rewriting the files of ", FamilyName(family), " needs up to ", needed,
                       " bytes meanwhile, and ", FreeBytes(), " are free, of which ",
                       options_.reserved_disk_bytes, " are reserved"));
    }
    rocksdb::CompactRangeOptions compact;
    compact.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    compact.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
    compact.blob_garbage_collection_age_cutoff = part;
    ANABRANCH_RETURN_IF_ERROR(RunCompaction(*open, family, compact, keep_going));
  }
  return absl::OkStatus();
}

}  // namespace anabranch
