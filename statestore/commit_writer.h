// What writes the library. The writer thread drains its queue into one batch and syncs it; then the
// high-water mark is moved, and all are answered (group commit). Mutations of a group see the
// effects of those before them, so preconditions hold as if each had been written alone, in the
// order of arrival.
//
// While more waits to be written, moving the mark and answering is left to a second thread, so that
// the next batch is written meanwhile. Groups are finished one at a time, in order, whoever does
// it, and each is answered after its own mark is durable.
//
// Failures: a disk that is nearly full refuses what adds content (RESOURCE_EXHAUSTED); one that is
// full refuses the group, and the next one tries again. Any
// other write or sync error is final: nobody knows what of the failed write is on disk, and a sync
// that succeeds after one that failed proves nothing. The writer then refuses everything
// (UNAVAILABLE, with the reason) until the library is opened again.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "statestore/apply_mutation.h"
#include "statestore/database.h"
#include "statestore/high_water_mark.h"
#include "statestore/prefix_index.h"
#include "statestore/state_store.h"
#include "statestore/tenant_use.h"

namespace anabranch {

class CommitWriter {
 public:
  // `commit_seq` and `use` are the library's. The database and the hasher must outlive the writer.
  CommitWriter(Database& database, std::unique_ptr<HighWaterMark> mark, const PrefixHasher& hasher,
               uint64_t commit_seq, UseByTenant use, const StoreOptions& options);
  // Writes and answers what is queued.
  ~CommitWriter();

  // Never blocks. `done` runs on one of the two threads, never two at a time.
  void Enqueue(Mutation mutation, CommitDone done) ABSL_LOCKS_EXCLUDED(mutex_);

  // Called after each group that is durable, before its commits are answered; as `done` is.
  void SetObserver(ChangeObserver observer) ABSL_LOCKS_EXCLUDED(observer_mutex_);

  uint64_t commit_seq() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What a tenant holds, and all together.
  TenantUse use(const std::string& tenant) const ABSL_LOCKS_EXCLUDED(mutex_);
  TenantUse total_use() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Empty unless the writer refuses everything.
  std::string read_only_reason() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Pending {
    Mutation mutation;
    CommitDone done;
    uint64_t bytes = 0;
    absl::Status status;   // the answer
    bool refused = false;  // `status` was known without looking at the library
  };

  // A group that was written, or could not be: what is left to do before it is answered.
  struct Written {
    std::vector<Pending> group;
    uint64_t commit_seq = 0;        // 0: it changed nothing
    UseByTenant use;                // after it
    std::vector<StateName> states;  // for the observer
    absl::Status failure;           // of the batch
  };

  void Run();
  // Waits for work; empty when there is no more and never will be.
  std::vector<Pending> TakeGroup() ABSL_LOCKS_EXCLUDED(mutex_);
  bool GroupReady() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Written WriteGroup(std::vector<Pending> group);
  absl::Status MakeWritable();
  void RefuseWhatHasNoRoom(std::vector<Pending>& group) const;
  // What is taken of the group goes into `changes`, and into `use`, which was the use before.
  void ApplyGroup(std::vector<Pending>& group, Overlay& changes, UseByTenant& use);
  absl::Status ApplyOne(Mutation& mutation, Overlay& changes, UseByTenant& use,
                        uint64_t& next_etag);
  void DropAnswersIfDue(Overlay& changes);
  // Finishes the group here, or leaves it to the other thread if that pays or must be.
  void HandOver(Written written) ABSL_LOCKS_EXCLUDED(mutex_);
  void RunFinisher();
  // Moves the mark, tells the observer, answers.
  void Finish(Written& written) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status MoveMark(const Written& written);
  void Announce(const Written& written) ABSL_LOCKS_EXCLUDED(observer_mutex_);
  absl::Status Classify(const absl::Status& failure);

  // Constant.
  Database& database_;
  const PrefixHasher& hasher_;
  const StoreOptions options_;
  // Of whoever finishes a group.
  const std::unique_ptr<HighWaterMark> mark_;
  // The writer thread's own.
  uint64_t attempted_seq_;   // never reused, even by a group that failed
  UseByTenant written_use_;  // what use_ will be
  absl::Time next_answer_sweep_ = absl::InfinitePast();

  mutable absl::Mutex mutex_;
  std::deque<Pending> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Written> unfinished_ ABSL_GUARDED_BY(mutex_);  // waits for the finisher
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;             // the finisher is at one
  bool written_all_ ABSL_GUARDED_BY(mutex_) = false;           // the writer thread has ended
  uint64_t commit_seq_ ABSL_GUARDED_BY(mutex_);
  UseByTenant use_ ABSL_GUARDED_BY(mutex_);
  std::string read_only_reason_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex observer_mutex_;
  ChangeObserver observer_ ABSL_GUARDED_BY(observer_mutex_);

  std::thread writer_, finisher_;  // last: start when all else is ready
};

}  // namespace anabranch
