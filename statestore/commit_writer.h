// What writes the library. The writer thread drains its queue into one group, makes it durable and
// answers it (group commit). Mutations of a group see the effects of those before them, so
// preconditions hold as if each had been written alone, in the order of arrival.
//
// A small group, of a commit or two with none waiting behind them, becomes durable in the journal
// (commit_journal.h), with one sync, and goes to the database's log after that, unsynced. A large
// one is a synced batch of the database, and then the high-water mark is moved; what the journal
// held is synced in the log before, once for all the groups of many writers, which follow each
// other. When nothing arrives for a moment, when the journal is full and when the library is
// closed, the log is synced and the mark moved, and the journal begins anew.
//
// A caller that waits anyway writes its mutation itself when nothing is under way: two switches of
// threads take as long as a sync of a fast disk. Who writes has the turn; what is called the writer
// below is whoever has it.
//
// While more waits to be written, moving the mark and answering is left to a second thread, so that
// the next large batch is written meanwhile. Groups are finished one at a time, in order, whoever
// does it, and each is answered after it is durable, by its own mark or record.
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
#include "statestore/commit_journal.h"
#include "statestore/database.h"
#include "statestore/high_water_mark.h"
#include "statestore/prefix_index.h"
#include "statestore/state_store.h"
#include "statestore/tenant_use.h"

namespace anabranch {

class CommitWriter {
 public:
  // `commit_seq` and `use` are the library's, and the mark says the same. Without a journal every
  // group is a large one. The database and the hasher must outlive the writer.
  CommitWriter(Database& database, std::unique_ptr<HighWaterMark> mark,
               std::unique_ptr<CommitJournal> journal, const PrefixHasher& hasher,
               uint64_t commit_seq, UseByTenant use, const StoreOptions& options);
  // Writes and answers what is queued.
  ~CommitWriter();

  // Never blocks. `done` runs on one of the threads that write, never two at a time.
  void Enqueue(Mutation mutation, CommitDone done) ABSL_LOCKS_EXCLUDED(mutex_);
  // The same, and waits for the answer. Not from within a `done`.
  absl::Status Commit(Mutation mutation) ABSL_LOCKS_EXCLUDED(mutex_);

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
    bool needs_mark = false;        // it is durable once the mark says so
    UseByTenant use;                // after it
    std::vector<StateName> states;  // for the observer
    absl::Status failure;           // of the write
  };

  void Run();
  // Checks and checksums are made here, so that the writer has less to do.
  static Pending Prepare(Mutation mutation, CommitDone done);
  void Queue(Pending pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits for work and takes the turn; empty when the journal is due, or when there is no more work
  // and never will be.
  std::vector<Pending> TakeGroup() ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Gives the turn back; whether all is over.
  bool EndTurn() ABSL_LOCKS_EXCLUDED(mutex_);
  bool GroupReady() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Written WriteGroup(std::vector<Pending> group);
  absl::Status MakeWritable();
  // After the disk was full: what the database has.
  absl::Status ReadBooks();
  bool JournalPays(const std::vector<Pending>& group) const ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes the changes durable, but for the mark that a group needs that is not in the journal.
  absl::Status Write(const Overlay& changes, Written& written);
  absl::Status WriteJournaled(absl::string_view encoded, const Overlay& changes);
  // OK if no mark is outstanding, and the journal begins anew if all it held is marked.
  absl::Status AwaitMarks() ABSL_LOCKS_EXCLUDED(mutex_);
  // Syncs the database's log up to the last group.
  absl::Status SyncLog();
  // SyncLog, and moves the mark: the journal begins anew.
  absl::Status Settle();
  void SettleIfDue();
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
  absl::Status AdvanceMark(uint64_t commit_seq) ABSL_LOCKS_EXCLUDED(mutex_);
  void Announce(const Written& written) ABSL_LOCKS_EXCLUDED(observer_mutex_);
  absl::Status Classify(const absl::Status& failure);

  // Constant.
  Database& database_;
  const PrefixHasher& hasher_;
  const StoreOptions options_;
  // Of whoever finishes a group; the writer's when no mark is due.
  const std::unique_ptr<HighWaterMark> mark_;
  // Of whoever has the turn.
  const std::unique_ptr<CommitJournal> journal_;  // may be null
  uint64_t attempted_seq_;                        // never reused, even by a group that failed
  uint64_t written_seq_;                          // the last group that the database has
  bool log_behind_ = false;                       // its log is not synced up to there
  UseByTenant written_use_;                       // what use_ will be
  bool books_due_ = false;                        // the two above may miss a group
  std::vector<StateName> refused_;                // that such a group changes if it is there
  std::vector<StateName> untold_;                 // that such groups changed
  absl::Time next_answer_sweep_ = absl::InfinitePast();

  mutable absl::Mutex mutex_;
  std::deque<Pending> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;     // somebody has the turn
  bool settle_due_ ABSL_GUARDED_BY(mutex_) = false;  // the journal holds something
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Written> unfinished_ ABSL_GUARDED_BY(mutex_);  // waits for the finisher
  bool finishing_ ABSL_GUARDED_BY(mutex_) = false;             // the finisher is at one
  int marks_due_ ABSL_GUARDED_BY(mutex_) = 0;                  // groups that wait for their mark
  uint64_t marked_seq_ ABSL_GUARDED_BY(mutex_);
  bool written_all_ ABSL_GUARDED_BY(mutex_) = false;  // the writer thread has ended
  uint64_t commit_seq_ ABSL_GUARDED_BY(mutex_);
  UseByTenant use_ ABSL_GUARDED_BY(mutex_);
  std::string read_only_reason_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex observer_mutex_;
  ChangeObserver observer_ ABSL_GUARDED_BY(observer_mutex_);

  std::thread writer_, finisher_;  // last: start when all else is ready
};

}  // namespace anabranch
