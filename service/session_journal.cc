#include "service/session_journal.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "service/error_info.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

SessionJournal::SessionJournal(StateStore* store, const StateStoring* storing, Metrics* metrics,
                               SessionRecord record, std::vector<int32_t> tail, bool created)
    : store_(store),
      storing_(storing),
      metrics_(metrics),
      record_(std::move(record)),
      tail_(std::move(tail)),
      created_(created) {
  durable_ = record_.head_position + tail_.size();
}

SessionView SessionJournal::view() const {
  absl::MutexLock lock(&mutex_);
  SessionView view;
  view.record = record_;
  view.token_count = record_.head_position + tail_.size();
  view.durable_token_count = durable_;
  return view;
}

std::vector<int32_t> SessionJournal::tail() const {
  absl::MutexLock lock(&mutex_);
  return tail_;
}

bool SessionJournal::created() const {
  absl::MutexLock lock(&mutex_);
  return created_;
}

absl::Status SessionJournal::error() const {
  absl::MutexLock lock(&mutex_);
  return error_;
}

int64_t SessionJournal::bytes_stored() const {
  absl::MutexLock lock(&mutex_);
  return bytes_stored_;
}

void SessionJournal::SetStoredBlobs(const std::vector<std::string>& hashes) {
  absl::MutexLock lock(&mutex_);
  stored_blobs_ = absl::flat_hash_set<std::string>(hashes.begin(), hashes.end());
}

void SessionJournal::SetLine(std::vector<LineState> line) {
  absl::MutexLock lock(&mutex_);
  line_ = std::move(line);
}

int64_t SessionJournal::Grid(int64_t server_default) {
  absl::MutexLock lock(&mutex_);
  const int64_t every = record_.checkpoints.every;
  grid_ = every == 0 ? server_default : std::max<int64_t>(every, 0);
  return grid_;
}

StateCodec SessionJournal::codec() const {
  absl::MutexLock lock(&mutex_);
  return storing_->CodecFor(record_.checkpoints);
}

void SessionJournal::SetPolicy(const CheckpointPolicy& policy) {
  absl::MutexLock lock(&mutex_);
  record_.checkpoints = policy;
}

void SessionJournal::SetObserver(std::function<void()> observer) {
  absl::MutexLock lock(&observer_mutex_);
  observer_ = std::move(observer);
}

void SessionJournal::Log(absl::Span<const int32_t> tokens) {
  if (tokens.empty()) return;
  Mutation mutation;
  int64_t end = 0;
  {
    absl::MutexLock lock(&mutex_);
    const int64_t position = record_.head_position + tail_.size();
    tail_.insert(tail_.end(), tokens.begin(), tokens.end());
    if (!created_) return;
    mutation.operations.push_back(AppendLog{record_.tenant, record_.id, position,
                                            std::vector<int32_t>(tokens.begin(), tokens.end())});
    end = position + tokens.size();
  }
  Submit(std::move(mutation), end, nullptr);
}

void SessionJournal::Checkpoint(int64_t position, StateImage image) {
  Mutation mutation;
  auto stored = Encode(std::move(image));
  {
    absl::MutexLock lock(&mutex_);
    absl::Status staged = stored.status();
    if (staged.ok()) {
      staged = StageCaptureLocked(position, *std::move(stored), {}, CaptureReason::kGrid, &mutation)
                   .status();
    }
    if (!staged.ok()) {
      error_.Update(staged);
      return;
    }
  }
  Submit(std::move(mutation), position, nullptr);
}

absl::StatusOr<StateRecord> SessionJournal::StageCapture(StateImage image, const Labels& labels,
                                                         Mutation* mutation, CaptureReason kind) {
  ANABRANCH_ASSIGN_OR_RETURN(StoredImage stored, Encode(std::move(image)));
  absl::MutexLock lock(&mutex_);
  return StageCaptureLocked(record_.head_position + tail_.size(), std::move(stored), labels, kind,
                            mutation);
}

// Takes milliseconds, so views of the session do not wait for it.
absl::StatusOr<StoredImage> SessionJournal::Encode(StateImage image) const {
  return EncodeFor(*storing_, codec(), std::move(image));
}

// The head moves in memory at once, so that the next capture names this state as its parent: ids
// depend on the history alone, not on how long the disk takes. If the write fails, error() makes
// the manager drop this object.
absl::StatusOr<StateRecord> SessionJournal::StageCaptureLocked(int64_t position, StoredImage stored,
                                                               const Labels& labels,
                                                               CaptureReason kind,
                                                               Mutation* mutation) {
  const StateHeader& header = stored.image.header;
  const int64_t span = position - record_.head_position;
  if (span < 0 || span > static_cast<int64_t>(tail_.size()) || header.token_count != position) {
    return absl::InternalError(absl::StrCat("a capture at token ", header.token_count,
                                            " does not fit the session ", record_.id, " with ",
                                            record_.head_position, " + ", tail_.size(), " tokens"));
  }
  PutState put;
  StateRecord& state = put.record;
  state.operation_params = LossyBaseParameter(header.origin, record_.head_position);
  state.keep_codec = record_.checkpoints.codec.has_value();
  bytes_stored_ += StageImage(std::move(stored), stored_blobs_, &put);
  stored_blobs_ =
      absl::flat_hash_set<std::string>(state.blob_hashes.begin(), state.blob_hashes.end());
  state.tenant = record_.tenant;
  if (!record_.head_state.empty()) state.parents.push_back(record_.head_state);
  state.span_tokens.assign(tail_.begin(), tail_.begin() + span);
  state.created = absl::Now();
  state.labels = labels;
  state.kind = kind;
  state.id = StateId(state);
  StateRecord staged = state;
  record_.head_state = state.id;
  record_.head_position = position;
  record_.updated = state.created;
  tail_.erase(tail_.begin(), tail_.begin() + span);
  mutation->operations.push_back(std::move(put));
  if (created_) {
    mutation->operations.push_back(PutSession{record_});
    mutation->operations.push_back(TrimLog{record_.tenant, record_.id, position});
  }
  line_.push_back({staged.id, position, kind, static_cast<int64_t>(staged.payload_bytes)});
  StageThinningLocked(mutation);
  return staged;
}

// In the mutation that moves the head, and after it: the library refuses to thin a head. What it
// keeps for another reason is not looked at again before the session is loaded anew.
void SessionJournal::StageThinningLocked(Mutation* mutation) {
  for (std::string& id : ThinLine(record_.checkpoints, grid_, record_.head_position, &line_)) {
    mutation->operations.push_back(ThinState{record_.tenant, std::move(id)});
  }
}

void SessionJournal::StageRecord(Mutation* mutation) {
  absl::MutexLock lock(&mutex_);
  record_.updated = absl::Now();
  PutSession put{record_};
  put.must_not_exist = !created_;
  mutation->operations.push_back(std::move(put));
  if (!created_ && !tail_.empty()) {
    mutation->operations.push_back(
        AppendLog{record_.tenant, record_.id, record_.head_position, tail_});
  }
  created_ = true;
}

void SessionJournal::Commit(Mutation mutation, CommitDone done) {
  const int64_t end = view().token_count;
  Submit(std::move(mutation), end, std::move(done));
}

void SessionJournal::Submit(Mutation mutation, int64_t end, CommitDone done) {
  const absl::Time start = absl::Now();
  store_->Commit(std::move(mutation), [self = shared_from_this(), end, start,
                                       done = std::move(done)](const absl::Status& status) {
    self->metrics_->RecordCommit(absl::Now() - start, status.ok());
    self->Finished(status, end);
    if (done) done(self->error());
  });
}

void SessionJournal::Finished(const absl::Status& status, int64_t end) {
  absl::MutexLock observer_lock(&observer_mutex_);
  {
    absl::MutexLock lock(&mutex_);
    error_.Update(WriteError(status));
    if (error_.ok()) durable_ = std::max(durable_, end);
  }
  if (observer_) observer_();
}

}  // namespace anabranch
