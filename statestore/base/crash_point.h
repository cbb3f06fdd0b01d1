// Named moments at which a crash is interesting. Tests set a hook that ends the process, or takes
// the power away, at one of them; without a hook a point costs one relaxed load. So what is tested
// is the release build. kCrashPointNames is the list that tests go through: crash_point_test those
// that a store passes, service_crash_test those that only a server does. A point that none of them
// reaches fails its test.
//
//   ReachCrashPoint(CrashPoint::kBatchWritten);
#pragma once

#include <atomic>

namespace anabranch {

enum class CrashPoint {
  // Opening, in order.
  kOpenInspected,
  kOpenRecovered,
  kOpenRedone,  // what the journal held; the mark is where it was
  kOpenMetaWritten,
  // The mark, and the journal.
  kNewFileWritten,  // under its temporary name
  kNewFileRenamed,  // the directory is not synced yet
  kNewFileDurable,
  // A commit group, in order.
  kGroupTaken,
  kGroupApplied,
  kJournalWritten,  // of a small group only
  kJournalSynced,
  kLogSynced,  // up to the last small group; the mark is where it was
  kBatchWritten,
  kMarkWritten,
  kMarkSynced,
  kGroupAnnounced,
  kGroupHalfAnswered,
  // Changes that a group's batch will hold.
  kStateThinned,
  kStateExpired,
  kStateArchived,
  kArchiveDeleted,
  // A state in another form.
  kRecodingReplaced,  // its new content goes into the batch, its former blobs are dropped
  kRecodingArchived,
  kReencodingStep,  // between the commits of the background re-encoder
  // An import, in order. The states of a bundle are stored in several commits.
  kImportChunkStaged,
  kImportChecked,
  kImportGroupStored,
  kImportFinished,
  // Between the small commits of what runs in the background.
  kSweepStep,
  kEvictionRanked,
  kEvictionStep,
  // Garbage collection.
  kGarbageFound,
  kGarbageDropped,
  kGarbageFlushed,
  kGarbageCompacted,
  kGarbageRewritten,
  // A backup, in order.
  kBackupInterruptedRemoved,
  kBackupCopied,
  kBackupVerified,
  kBackupManifestWritten,  // under its temporary name
  kBackupManifestRenamed,  // the directory is not synced yet
  kBackupComplete,
  kBackupOldestRemoved,
  // A restore, in order; its mark is made between the first two.
  kRestoreCopied,
  kRestoreMarked,
  kRestoreRenamed,
  // A full disk.
  kFullDiskReadOnly,
  kFullDiskReopened,
  kCount,
};

inline constexpr const char* kCrashPointNames[] = {"open_inspected",
                                                   "open_recovered",
                                                   "open_redone",
                                                   "open_meta_written",
                                                   "new_file_written",
                                                   "new_file_renamed",
                                                   "new_file_durable",
                                                   "group_taken",
                                                   "group_applied",
                                                   "journal_written",
                                                   "journal_synced",
                                                   "log_synced",
                                                   "batch_written",
                                                   "mark_written",
                                                   "mark_synced",
                                                   "group_announced",
                                                   "group_half_answered",
                                                   "state_thinned",
                                                   "state_expired",
                                                   "state_archived",
                                                   "archive_deleted",
                                                   "recoding_replaced",
                                                   "recoding_archived",
                                                   "reencoding_step",
                                                   "import_chunk_staged",
                                                   "import_checked",
                                                   "import_group_stored",
                                                   "import_finished",
                                                   "sweep_step",
                                                   "eviction_ranked",
                                                   "eviction_step",
                                                   "garbage_found",
                                                   "garbage_dropped",
                                                   "garbage_flushed",
                                                   "garbage_compacted",
                                                   "garbage_rewritten",
                                                   "backup_interrupted_removed",
                                                   "backup_copied",
                                                   "backup_verified",
                                                   "backup_manifest_written",
                                                   "backup_manifest_renamed",
                                                   "backup_complete",
                                                   "backup_oldest_removed",
                                                   "restore_copied",
                                                   "restore_marked",
                                                   "restore_renamed",
                                                   "full_disk_read_only",
                                                   "full_disk_reopened"};
static_assert(sizeof(kCrashPointNames) / sizeof(*kCrashPointNames) ==
              static_cast<int>(CrashPoint::kCount));

// Runs on the thread that reached the point.
using CrashHook = void (*)(CrashPoint);
inline std::atomic<CrashHook> crash_hook{nullptr};

inline void ReachCrashPoint(CrashPoint point) {
  if (const CrashHook hook = crash_hook.load(std::memory_order_relaxed)) hook(point);
}

}  // namespace anabranch
