// The durable side of one session: its record in the library, the tokens after its head state, and
// the writes under way. It turns "the engine advanced" into log entries and "here is a capture"
// into a state plus a moved head, always in the order in which they happened.
//
// Thread rule: every member may be called from any thread; the caller makes sure that one call
// works on the session at a time (SessionManager's lease), so writes have one order.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "runtime/state_image.h"
#include "service/checkpoint_policy.h"
#include "service/metrics.h"
#include "service/state_storing.h"
#include "statestore/state_store.h"

namespace anabranch {

// What anyone may see of a session.
struct SessionView {
  SessionRecord record;
  int64_t token_count = 0, durable_token_count = 0;
  bool loaded = false, busy = false;
};

class SessionJournal : public std::enable_shared_from_this<SessionJournal> {
 public:
  // `storing` outlives this. `tail`: the tokens after the head, as logged. `created` false: the
  // session is not in the library yet; nothing is logged and captures do not touch the record until
  // StageCreation.
  SessionJournal(StateStore* store, const StateStoring* storing, Metrics* metrics,
                 SessionRecord record, std::vector<int32_t> tail, bool created);

  SessionView view() const;
  std::vector<int32_t> tail() const;
  bool created() const;
  // The first write that failed; the session must then be read from the library again.
  absl::Status error() const;
  // Bytes of states staged by this object so far.
  int64_t bytes_stored() const;

  // Blobs that the head state needs, and so are stored: captures do not send them again.
  void SetStoredBlobs(const std::vector<std::string>& hashes);
  // The states of the session's own line that it may thin, in the order of positions.
  void SetLine(std::vector<LineState> line);
  // The grid to capture on: the policy's, or else the server's. 0: none.
  int64_t Grid(int64_t server_default);
  // What states of the session are captured and kept in.
  StateCodec codec() const;
  // Takes effect with the next capture; StageRecord writes it.
  void SetPolicy(const CheckpointPolicy& policy);

  // Called after every change of the durable position or of error(), on the library's writer
  // thread; must not block. Null to stop: none runs after SetObserver returned.
  void SetObserver(std::function<void()> observer);

  // The engine advanced by `tokens`: writes them to the log. Does not block.
  void Log(absl::Span<const int32_t> tokens);
  // A capture inside a long read or generation. Commits without waiting.
  void Checkpoint(int64_t position, StateImage image);

  // Adds to `mutation` the state at the end and the moved head; returns the state's record (its id
  // is set). INTERNAL if the image does not stand at the end of the tokens.
  absl::StatusOr<StateRecord> StageCapture(StateImage image, const Labels& labels,
                                           Mutation* mutation,
                                           CaptureReason kind = CaptureReason::kTurn);
  // Adds the session's record itself, with a new time of update; creates the session if it is new.
  void StageRecord(Mutation* mutation);
  // Commits, and calls back with the first error of this and all earlier writes.
  void Commit(Mutation mutation, CommitDone done);

 private:
  absl::StatusOr<StoredImage> Encode(StateImage image) const;
  absl::StatusOr<StateRecord> StageCaptureLocked(int64_t position, StoredImage stored,
                                                 const Labels& labels, CaptureReason kind,
                                                 Mutation* mutation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StageThinningLocked(Mutation* mutation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Submit(Mutation mutation, int64_t end, CommitDone done);
  void Finished(const absl::Status& status, int64_t end);

  StateStore* const store_;
  const StateStoring* const storing_;
  Metrics* const metrics_;

  mutable absl::Mutex mutex_;
  SessionRecord record_ ABSL_GUARDED_BY(mutex_);
  std::vector<int32_t> tail_ ABSL_GUARDED_BY(mutex_);  // tokens after the head
  int64_t durable_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t bytes_stored_ ABSL_GUARDED_BY(mutex_) = 0;
  bool created_ ABSL_GUARDED_BY(mutex_);
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  std::vector<LineState> line_ ABSL_GUARDED_BY(mutex_);
  int64_t grid_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_set<std::string> stored_blobs_ ABSL_GUARDED_BY(mutex_);

  absl::Mutex observer_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::function<void()> observer_ ABSL_GUARDED_BY(observer_mutex_);
};

}  // namespace anabranch
