#include "statestore/commit_writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_files.h"
#include "statestore/library_reads.h"
#include "statestore/record_codec.h"

namespace anabranch {
namespace {

constexpr uint64_t kMaxGroupBytes = 64u << 20;
constexpr size_t kMaxGroupOperations = kMaxOperations;
constexpr uint64_t kEtagsPerGroup = 1 << 20;
constexpr absl::Duration kAnswerSweepInterval = absl::Hours(1);
constexpr int kAnswersPerSweep = 10000;
// How long the newest groups are in the journal and in an unsynced log alone, unless the queue is
// never empty.
constexpr absl::Duration kSettleAfter = absl::Milliseconds(50);
// The journal is for commits that come alone or nearly so. More of them share their syncs, and have
// one batch written while the mark of another is moved, which a journal cannot.
constexpr size_t kCommitsThatAreFew = 2;

absl::Status MayBeOnDisk(absl::string_view reason) {
  return absl::UnavailableError(
      absl::StrCat("the commit may or may not be on disk; the library is read-only now: ", reason));
}

}  // namespace

CommitWriter::CommitWriter(Database& database, std::unique_ptr<HighWaterMark> mark,
                           std::unique_ptr<CommitJournal> journal, const PrefixHasher& hasher,
                           uint64_t commit_seq, UseByTenant use, const StoreOptions& options)
    : database_(database),
      hasher_(hasher),
      options_(options),
      mark_(std::move(mark)),
      journal_(std::move(journal)),
      attempted_seq_(commit_seq),
      written_seq_(commit_seq),
      written_use_(use),
      marked_seq_(commit_seq),
      commit_seq_(commit_seq),
      use_(std::move(use)),
      writer_([this] { Run(); }),
      finisher_([this] { RunFinisher(); }) {}

CommitWriter::~CommitWriter() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  writer_.join();
  {
    absl::MutexLock lock(&mutex_);
    written_all_ = true;
  }
  finisher_.join();
}

CommitWriter::Pending CommitWriter::Prepare(Mutation mutation, CommitDone done) {
  Pending pending;
  pending.done = std::move(done);
  pending.status = PrepareMutation(mutation);
  pending.refused = !pending.status.ok();
  pending.bytes = QueuedBytes(mutation);
  pending.mutation = std::move(mutation);
  return pending;
}

// Refused mutations go through the queue too: callers may rely on `done` never running inside.
void CommitWriter::Enqueue(Mutation mutation, CommitDone done) {
  Pending pending = Prepare(std::move(mutation), std::move(done));
  absl::MutexLock lock(&mutex_);
  Queue(std::move(pending));
}

absl::Status CommitWriter::Commit(Mutation mutation) {
  absl::Notification answered;
  absl::Status answer;
  Pending pending = Prepare(std::move(mutation), [&](absl::Status status) {
    answer = std::move(status);
    answered.Notify();
  });
  std::vector<Pending> group;
  {
    absl::MutexLock lock(&mutex_);
    const bool idle = !writing_ && queue_.empty() && !finishing_ && !unfinished_.has_value();
    if (idle && options_.group_commit_window == absl::ZeroDuration()) {
      writing_ = true;
      group.push_back(std::move(pending));
    } else {
      Queue(std::move(pending));
    }
  }
  if (!group.empty()) {
    ReachCrashPoint(CrashPoint::kGroupTaken);
    HandOver(WriteGroup(std::move(group)));
    EndTurn();
  }
  answered.WaitForNotification();
  return answer;
}

void CommitWriter::Queue(Pending pending) {
  if (!pending.refused && queued_bytes_ + pending.bytes > options_.max_queued_bytes) {
    pending.status = absl::ResourceExhaustedError(
        absl::StrCat(queued_bytes_, " bytes wait to be written; with this commit's ", pending.bytes,
                     " it would be more than ", options_.max_queued_bytes,
                     ". Retry when earlier commits have been answered"));
    pending.refused = true;
  }
  if (pending.refused) {
    pending.bytes = 0;
    pending.mutation = Mutation();
  }
  queued_bytes_ += pending.bytes;
  queue_.push_back(std::move(pending));
}

void CommitWriter::SetObserver(ChangeObserver observer) {
  absl::MutexLock lock(&observer_mutex_);
  observer_ = std::move(observer);
}

uint64_t CommitWriter::commit_seq() const {
  absl::MutexLock lock(&mutex_);
  return commit_seq_;
}

TenantUse CommitWriter::use(const std::string& tenant) const {
  absl::MutexLock lock(&mutex_);
  const auto found = use_.find(tenant);
  return found != use_.end() ? found->second : TenantUse();
}

TenantUse CommitWriter::total_use() const {
  absl::MutexLock lock(&mutex_);
  TenantUse total;
  for (const auto& [tenant, use] : use_) Add(use, total);
  return total;
}

std::string CommitWriter::read_only_reason() const {
  absl::MutexLock lock(&mutex_);
  return read_only_reason_;
}

void CommitWriter::Run() {
  for (;;) {
    std::vector<Pending> group = TakeGroup();
    if (group.empty()) {
      SettleIfDue();
    } else {
      ReachCrashPoint(CrashPoint::kGroupTaken);
      HandOver(WriteGroup(std::move(group)));
    }
    if (EndTurn()) return;
  }
}

bool CommitWriter::HasWork() const { return !writing_ && (stopping_ || !queue_.empty()); }

bool CommitWriter::GroupReady() const { return stopping_ || queued_bytes_ >= kMaxGroupBytes; }

bool CommitWriter::EndTurn() {
  absl::MutexLock lock(&mutex_);
  writing_ = false;
  return stopping_ && queue_.empty() && !settle_due_;
}

std::vector<CommitWriter::Pending> CommitWriter::TakeGroup() {
  absl::MutexLock lock(&mutex_);
  const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return settle_due_ || HasWork();
  };
  const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !writing_; };
  mutex_.Await(absl::Condition(&wanted));
  mutex_.AwaitWithTimeout(absl::Condition(this, &CommitWriter::HasWork), kSettleAfter);
  mutex_.Await(absl::Condition(&free));
  writing_ = true;
  if (queue_.empty()) return {};
  if (options_.group_commit_window > absl::ZeroDuration()) {
    mutex_.AwaitWithTimeout(absl::Condition(this, &CommitWriter::GroupReady),
                            options_.group_commit_window);
  }
  std::vector<Pending> group;
  uint64_t bytes = 0;
  size_t operations = 0;
  while (!queue_.empty() && bytes < kMaxGroupBytes && operations < kMaxGroupOperations) {
    bytes += queue_.front().bytes;
    operations += queue_.front().mutation.operations.size() + 1;
    group.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  queued_bytes_ -= bytes;
  return group;
}

CommitWriter::Written CommitWriter::WriteGroup(std::vector<Pending> group) {
  Written written;
  written.group = std::move(group);
  written.failure = MakeWritable();
#ifdef ANABRANCH_BROKEN_EARLY_ANSWER  // tests/crash/mutation_check.py shows that tests notice
  for (Pending& pending : written.group) {
    if (!pending.refused && pending.done) std::exchange(pending.done, nullptr)(absl::OkStatus());
  }
#endif
  if (!written.failure.ok()) return written;
  RefuseWhatHasNoRoom(written.group);
  const Snapshot snapshot(database_);
  Overlay changes(snapshot);
  written.use = written_use_;
  ApplyGroup(written.group, changes, written.use);
  if (changes.empty()) return written;
  changes.Put(Family::kMeta, std::string(kCommitSeqKey),
              EncodeNumber(kCommitSeqKey, attempted_seq_));
  written.failure = Classify(Write(changes, written));
  if (!written.failure.ok()) {
    refused_ = StatesIn(changes);
    return written;
  }
  ReachCrashPoint(CrashPoint::kBatchWritten);
  written.commit_seq = written_seq_ = attempted_seq_;
  written_use_ = written.use;
  written.states = StatesIn(changes);
  written.states.insert(written.states.end(), untold_.begin(), untold_.end());
  untold_.clear();
  return written;
}

absl::Status CommitWriter::MakeWritable() {
  const std::string reason = read_only_reason();
  if (!reason.empty()) {
    return absl::UnavailableError(absl::StrCat("the library is read-only: ", reason));
  }
  const absl::StatusOr<bool> anew = database_.MakeWritable();
  if (!anew.ok()) return Classify(anew.status());
  books_due_ |= *anew;
  return books_due_ ? Classify(ReadBooks()) : absl::OkStatus();
}

// A group that the disk was too full for was refused, and yet all of it can be in the log that was
// read when the database was opened anew, the books with it. Then the observer is told of its
// states, also of those that it deleted, which nothing in the library names any more.
absl::Status CommitWriter::ReadBooks() {
  const Snapshot snapshot(database_);
  ANABRANCH_ASSIGN_OR_RETURN(written_use_, ReadUse(snapshot));
  ANABRANCH_ASSIGN_OR_RETURN(const LibraryMeta meta, ReadLibraryMeta(database_));
  if (meta.commit_seq > written_seq_) {
    untold_.insert(untold_.end(), refused_.begin(), refused_.end());
    written_seq_ = meta.commit_seq;
  }
  refused_.clear();
  books_due_ = false;
  return absl::OkStatus();
}

// While a mark is due, more writers are there than one group shows; and a group of the journal
// would have to wait for it.
bool CommitWriter::JournalPays(const std::vector<Pending>& group) const {
  uint64_t bytes = 0;
  for (const Pending& pending : group) bytes += pending.bytes;
  if (journal_ == nullptr || !journal_->Fits(bytes)) return false;
  absl::MutexLock lock(&mutex_);
  return marks_due_ == 0 && group.size() + queue_.size() <= kCommitsThatAreFew;
}

absl::Status CommitWriter::Write(const Overlay& changes, Written& written) {
  if (JournalPays(written.group)) {
    const std::string encoded = EncodeChanges(changes);
    if (journal_->Fits(encoded.size())) return WriteJournaled(encoded, changes);
  }
  ANABRANCH_RETURN_IF_ERROR(SyncLog());
  ANABRANCH_RETURN_IF_ERROR(database_.Write(changes, Durability::kSynced));
  written.needs_mark = true;
  absl::MutexLock lock(&mutex_);
  ++marks_due_;
  return absl::OkStatus();
}

// First the journal: readers see what the database has, and that must be durable. A group that the
// disk has no room for is taken back, since the next one will not rest on it.
absl::Status CommitWriter::WriteJournaled(absl::string_view encoded, const Overlay& changes) {
  ANABRANCH_RETURN_IF_ERROR(AwaitMarks());
  if (!journal_->HasRoomFor(encoded.size())) ANABRANCH_RETURN_IF_ERROR(Settle());
  absl::Status written = journal_->Write(attempted_seq_, written_seq_, encoded);
  if (written.ok()) {
    log_behind_ = true;
    written = database_.Write(changes, Durability::kLogged);
  }
  if (absl::IsResourceExhausted(written)) {
    const absl::Status taken_back = journal_->Void();
    return taken_back.ok() ? written : absl::InternalError(taken_back.message());
  }
  ANABRANCH_RETURN_IF_ERROR(written);
  journal_->Keep();
  absl::MutexLock lock(&mutex_);
  settle_due_ = true;
  return absl::OkStatus();
}

absl::Status CommitWriter::AwaitMarks() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](int* due) { return *due == 0; }, &marks_due_));
  if (!read_only_reason_.empty()) return absl::InternalError(read_only_reason_);
  if (journal_->newest_seq() <= marked_seq_) journal_->Restart();
  return absl::OkStatus();
}

// The same commit_seq again: whatever recovery finds of it and of what is before it, the journal's
// groups can be done again on top. Only with them in the synced log may anything be written that is
// not in the journal.
absl::Status CommitWriter::SyncLog() {
  if (!log_behind_) return absl::OkStatus();
  const Snapshot snapshot(database_);
  Overlay again(snapshot);
  again.Put(Family::kMeta, std::string(kCommitSeqKey), EncodeNumber(kCommitSeqKey, written_seq_));
  ANABRANCH_RETURN_IF_ERROR(database_.Write(again, Durability::kSynced));
  log_behind_ = false;
  ReachCrashPoint(CrashPoint::kLogSynced);
  return absl::OkStatus();
}

absl::Status CommitWriter::Settle() {
  ANABRANCH_RETURN_IF_ERROR(AwaitMarks());
  ANABRANCH_RETURN_IF_ERROR(SyncLog());
  ANABRANCH_RETURN_IF_ERROR(AdvanceMark(written_seq_));
  journal_->Restart();
  return absl::OkStatus();
}

// Nobody waits for it. After a full disk the next group comes by here again.
void CommitWriter::SettleIfDue() {
  {
    absl::MutexLock lock(&mutex_);
    if (!std::exchange(settle_due_, false)) return;
  }
  if (!MakeWritable().ok()) return;
  Classify(Settle()).IgnoreError();
}

void CommitWriter::RefuseWhatHasNoRoom(std::vector<Pending>& group) const {
  const uint64_t free = database_.FreeBytes();
  uint64_t wanted = options_.reserved_disk_bytes;
  for (Pending& pending : group) {
    if (pending.refused || !AddsContent(pending.mutation)) continue;
    wanted += pending.bytes;
    if (free >= wanted) continue;
    pending.refused = true;
    pending.status = absl::ResourceExhaustedError(
        absl::StrCat("the disk is full: ", free, " bytes are free for ", options_.directory,
                     ", of which ", options_.reserved_disk_bytes,
                     " are reserved for deleting. Free some space, or delete states"));
  }
}

void CommitWriter::ApplyGroup(std::vector<Pending>& group, Overlay& changes, UseByTenant& use) {
  ++attempted_seq_;
  uint64_t next_etag = attempted_seq_ * kEtagsPerGroup;
  for (Pending& pending : group) {
    if (!pending.refused) pending.status = ApplyOne(pending.mutation, changes, use, next_etag);
  }
  if (!changes.empty()) DropAnswersIfDue(changes);
  ReachCrashPoint(CrashPoint::kGroupApplied);
}

absl::Status CommitWriter::ApplyOne(Mutation& mutation, Overlay& changes, UseByTenant& use,
                                    uint64_t& next_etag) {
  Overlay own(changes);
  ApplyContext context{
      own, hasher_, absl::Now(), next_etag, options_.default_expiry, options_.payload_part_bytes};
  const absl::Status applied = ApplyMutation(mutation, context);
  next_etag = context.next_etag;
  ANABRANCH_RETURN_IF_ERROR(applied);
  ANABRANCH_ASSIGN_OR_RETURN(const UseByTenant used, UseChanges(own, changes));
  for (const auto& [tenant, change] : used) {
    ANABRANCH_RETURN_IF_ERROR(CheckQuotas(tenant, use[tenant], change, options_.quotas));
  }
  for (const auto& [tenant, change] : used) {
    if (change == TenantUse()) continue;
    Add(change, use[tenant]);
    context.effect.bytes += change.bytes;
    std::string key = UseKey(tenant);
    std::string value = EncodeUse(key, use[tenant]);
    own.Put(Family::kMeta, std::move(key), std::move(value));
  }
  if (mutation.effect != nullptr) *mutation.effect = context.effect;
  changes.Absorb(std::move(own));
  return absl::OkStatus();
}

// A sweep that fails is tried again with the next group; it never fails a commit.
void CommitWriter::DropAnswersIfDue(Overlay& changes) {
  const absl::Time now = absl::Now();
  if (now < next_answer_sweep_) return;
  Overlay own(changes);
  ApplyContext context{own, hasher_, now, 0};
  if (!DropOldAnswers(context, kAnswersPerSweep).ok()) return;
  changes.Absorb(std::move(own));
  next_answer_sweep_ = now + kAnswerSweepInterval;
}

// The other thread costs a switch, which pays only if there is something to write meanwhile. No
// more than one group waits for it, so that what is written runs ahead of its answers by two at
// most.
void CommitWriter::HandOver(Written written) {
  {
    absl::MutexLock lock(&mutex_);
    if (finishing_ || unfinished_.has_value() || !queue_.empty()) {
      mutex_.Await(absl::Condition(
          +[](std::optional<Written>* waiting) { return !waiting->has_value(); }, &unfinished_));
      unfinished_ = std::move(written);
      return;
    }
  }
  Finish(written);
}

void CommitWriter::RunFinisher() {
  for (;;) {
    std::optional<Written> written;
    {
      absl::MutexLock lock(&mutex_);
      finishing_ = false;
      mutex_.Await(absl::Condition(
          +[](CommitWriter* self) ABSL_EXCLUSIVE_LOCKS_REQUIRED(self->mutex_) {
            return self->unfinished_.has_value() || self->written_all_;
          },
          this));
      if (!unfinished_.has_value()) return;
      written = std::exchange(unfinished_, std::nullopt);
      finishing_ = true;
    }
    Finish(*written);
  }
}

void CommitWriter::Finish(Written& written) {
  const absl::Status durable = MoveMark(written);
  if (durable.ok() && written.commit_seq != 0) {
    {
      absl::MutexLock lock(&mutex_);
      commit_seq_ = written.commit_seq;
      use_ = std::move(written.use);
    }
    Announce(written);
    ReachCrashPoint(CrashPoint::kGroupAnnounced);
  }
  std::vector<Pending>& group = written.group;
  for (size_t i = 0; i < group.size(); ++i) {
    // Also those that failed a precondition: it may rest on a change that was not written.
    if (!durable.ok() && !group[i].refused) group[i].status = durable;
    if (i > 0 && i == group.size() / 2) ReachCrashPoint(CrashPoint::kGroupHalfAnswered);
    if (group[i].done) group[i].done(group[i].status);
  }
}

// A group after one whose mark failed rests on it, and may be on disk itself: it fails as well.
absl::Status CommitWriter::MoveMark(const Written& written) {
  ANABRANCH_RETURN_IF_ERROR(written.failure);
  const std::string reason = read_only_reason();
  if (!written.needs_mark) return reason.empty() ? absl::OkStatus() : MayBeOnDisk(reason);
  absl::Status moved =
      reason.empty() ? Classify(AdvanceMark(written.commit_seq)) : MayBeOnDisk(reason);
  absl::MutexLock lock(&mutex_);
  --marks_due_;
  return moved;
}

absl::Status CommitWriter::AdvanceMark(uint64_t commit_seq) {
  ANABRANCH_RETURN_IF_ERROR(mark_->Advance(commit_seq, options_.sync_high_water));
  absl::MutexLock lock(&mutex_);
  marked_seq_ = commit_seq;
  return absl::OkStatus();
}

void CommitWriter::Announce(const Written& written) {
  absl::MutexLock lock(&observer_mutex_);
  if (observer_) observer_(written.commit_seq, written.states);
}

absl::Status CommitWriter::Classify(const absl::Status& failure) {
  if (failure.ok() || absl::IsResourceExhausted(failure)) return failure;
  absl::MutexLock lock(&mutex_);
  read_only_reason_ = std::string(failure.message());
  return MayBeOnDisk(read_only_reason_);
}

}  // namespace anabranch
