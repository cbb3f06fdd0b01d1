#include "service/session_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/logging.h"
#include "service/names.h"
#include "service/proto_conversion.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

OnCheckpoint CheckpointInto(std::shared_ptr<SessionJournal> journal) {
  return [journal = std::move(journal)](int64_t position, absl::StatusOr<StateImage> image) {
    if (image.ok()) return journal->Checkpoint(position, *std::move(image));
    // The tokens are logged, so only a longer replay is lost.
    LogEvent(LogLevel::kWarning, "checkpoint_failed",
             {{"error", std::string(image.status().message())}});
  };
}

OnProgress LogInto(std::shared_ptr<SessionJournal> journal) {
  return [journal = std::move(journal)](absl::Span<const int32_t> tokens, int64_t) {
    journal->Log(tokens);
  };
}

}  // namespace

absl::Status CheckTokenCount(const std::string& session_id, int64_t count, int64_t expected) {
  if (expected < 0) return InvalidField("expected_token_count", "must not be negative");
  if (expected == 0 || expected == count) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kAborted, "TOKEN_COUNT_MISMATCH",
                         absl::StrCat("session ", session_id, " has ", count,
                                      " tokens, expected_token_count is ", expected),
                         {{"session_id", session_id}, {"token_count", absl::StrCat(count)}});
}

absl::StatusOr<bool> SessionCall::Claim(const std::string& request_id,
                                        google::protobuf::Message* answer) {
  return service_->answers->Begin(call_->tenant, request_id, answer, &claim_);
}

absl::Status SessionCall::Open(const std::string& session_id, int64_t expected_token_count) {
  ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", session_id));
  ANABRANCH_ASSIGN_OR_RETURN(lease_, service_->sessions->Acquire(call_->tenant, session_id));
  return CheckTokenCount(session_id, token_count(), expected_token_count);
}

absl::Status SessionCall::OpenNew(const SessionRecord& record, std::vector<int32_t> tail) {
  ANABRANCH_ASSIGN_OR_RETURN(lease_, service_->sessions->AcquireNew(record, std::move(tail)));
  return absl::OkStatus();
}

void SessionCall::Load(const Done& done) {
  service_->sessions->Load(lease_, call_->work_options(), &call_->usage,
                           [self = shared_from_this(), done](absl::Status status) {
                             if (absl::Status why = self->call_->Interrupted();
                                 !status.ok() && !why.ok()) {
                               status = why;
                             }
                             done(status);
                           });
}

absl::Status SessionCall::CheckContext(int64_t count, const std::string& field) {
  const int64_t limit = service_->limits.max_context_tokens;
  const int64_t total = token_count() + count;
  return total > limit ? LimitExceeded(absl::StrCat(field, ": context tokens"), total, limit)
                       : absl::OkStatus();
}

void SessionCall::AddStats(const WorkStats& stats) {
  v1::Usage& usage = call_->usage;
  usage.set_tokens_read(usage.tokens_read() + stats.tokens_read);
  usage.set_tokens_generated(usage.tokens_generated() + stats.tokens_generated);
  usage.set_queue_ms(usage.queue_ms() + absl::ToDoubleMilliseconds(stats.queue_time));
  usage.set_compute_ms(usage.compute_ms() + absl::ToDoubleMilliseconds(stats.compute_time));
}

// A call that was stopped says why in the same words wherever it was stopped. An engine and a
// journal that disagree about the session must not go on together.
absl::Status SessionCall::AfterWork(const absl::Status& status) {
  if (service_->engine->Position(lease_->sequence()) != token_count()) {
    lease_->Discard();
    return absl::InternalError(
        absl::StrCat("session ", lease_->id(), ": engine and log disagree about its length"));
  }
  ANABRANCH_RETURN_IF_ERROR(lease_->journal().error());
  if (status.ok()) return status;
  // Work that was stopped or lacked room left the sequence whole; after anything else it is not to
  // be trusted, and the session comes back from the library.
  const bool whole = absl::IsCancelled(status) || absl::IsDeadlineExceeded(status) ||
                     absl::IsResourceExhausted(status);
  if (!whole) lease_->Discard();
  absl::Status why = call_->Interrupted();
  if (!why.ok()) return why;
  return absl::IsResourceExhausted(status) ? WithReason(status, "ENGINE_FULL") : status;
}

void SessionCall::Read(std::vector<int32_t> tokens, const Done& done) {
  if (tokens.empty()) return done(absl::OkStatus());
  service_->sessions->MakeWritable(lease_->sequence(), tokens.size());
  const std::shared_ptr<SessionJournal> journal = lease_->shared_journal();
  ReadWork work;
  work.sequence = lease_->sequence();
  work.tokens = std::move(tokens);
  work.options = call_->work_options();
  work.checkpoint_every = journal->Grid(checkpoint_every_);
  work.checkpoint_codec = journal->codec();
  work.on_progress = LogInto(journal);
  work.on_checkpoint = CheckpointInto(journal);
  work.on_done = [self = shared_from_this(), done](const absl::Status& status,
                                                   const WorkStats& stats) {
    self->service_->pool->Run([self, done, status, stats] {
      self->AddStats(stats);
      done(self->AfterWork(status));
    });
  };
  const absl::Status submitted = service_->engine->Submit(std::move(work));
  if (!submitted.ok()) done(submitted);
}

void SessionCall::Generate(GenerateWork work, FinishReason* reason, const Done& done) {
  service_->sessions->MakeWritable(lease_->sequence(), work.max_tokens);
  const std::shared_ptr<SessionJournal> journal = lease_->shared_journal();
  work.sequence = lease_->sequence();
  work.options = call_->work_options();
  work.checkpoint_every = journal->Grid(checkpoint_every_);
  work.checkpoint_codec = journal->codec();
  work.on_progress = LogInto(journal);
  work.on_checkpoint = CheckpointInto(journal);
  work.on_done = [self = shared_from_this(), reason, done](
                     const absl::Status& status, const WorkStats& stats, FinishReason finish) {
    self->service_->pool->Run([self, reason, done, status, stats, finish] {
      self->AddStats(stats);
      *reason = finish;
      done(self->AfterWork(status));
    });
  };
  const absl::Status submitted = service_->engine->Submit(std::move(work));
  if (!submitted.ok()) done(submitted);
}

absl::StatusOr<std::optional<StateRecord>> SessionCall::StageCapture(const Labels& labels,
                                                                     Mutation* mutation,
                                                                     CaptureReason kind) {
  SessionJournal& journal = lease_->journal();
  const SessionView view = journal.view();
  if (view.token_count == view.record.head_position || lease_->sequence() == nullptr) {
    return std::optional<StateRecord>();
  }
  const int64_t stored = journal.bytes_stored();
  ANABRANCH_ASSIGN_OR_RETURN(StateImage image,
                             service_->engine->Capture(lease_->sequence(), journal.codec()));
  ANABRANCH_ASSIGN_OR_RETURN(StateRecord record,
                             journal.StageCapture(std::move(image), labels, mutation, kind));
  call_->usage.set_state_bytes_stored(call_->usage.state_bytes_stored() + journal.bytes_stored() -
                                      stored);
  return std::optional<StateRecord>(std::move(record));
}

void SessionCall::Complete(bool checkpoint, const MakeAnswer& make_answer, const Done& done) {
  Mutation mutation;
  if (checkpoint && lease_->journal().view().record.checkpoints.turn_ends) {
    const auto staged = StageCapture({}, &mutation);
    if (!staged.ok()) return done(staged.status());
  }
  Complete(std::move(mutation), make_answer, done);
}

void SessionCall::Complete(Mutation mutation, const MakeAnswer& make_answer, const Done& done) {
  lease_->journal().StageRecord(&mutation);
  claim_.StageAnswer(*make_answer(), &mutation);
  lease_->journal().Commit(std::move(mutation),
                           [self = shared_from_this(), done](const absl::Status& status) {
                             self->service_->pool->Run([done, status] { done(status); });
                           });
}

v1::Session SessionCall::session() {
  SessionView view = lease_->journal().view();
  view.loaded = lease_->sequence() != nullptr;
  return ToProto(view);
}

void SessionCall::Release() {
  if (lease_ != nullptr) lease_->Release();
  lease_ = nullptr;
  claim_ = AnswerBook::Claim();
}

}  // namespace anabranch
