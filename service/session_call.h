// One call on one session: claims its request id, leases the session, brings it into a slot, reads
// tokens into it with every step logged, and ends with everything durable. Append, Generate, Create
// and Commit are this plus their own streams and answers.
//
// Thread rule: one member at a time; a member that takes `done` has ended when done was called.
// Members block on the library and run on the worker pool; so does `done`.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "anabranch/v1/sessions.pb.h"
#include "service/service_context.h"

namespace anabranch {

// ABORTED (TOKEN_COUNT_MISMATCH) unless a session's `count` is what the request expects; 0: any.
absl::Status CheckTokenCount(const std::string& session_id, int64_t count, int64_t expected);

class SessionCall : public std::enable_shared_from_this<SessionCall> {
 public:
  using Done = std::function<void(absl::Status)>;

  SessionCall(ServiceContext* service, CallPtr call)
      : service_(service), call_(std::move(call)), checkpoint_every_(service->checkpoint_every) {}

  // True: the request was answered before, `answer` is filled and the call is over.
  absl::StatusOr<bool> Claim(const std::string& request_id, google::protobuf::Message* answer);
  // Leases a stored session. expected_token_count 0: any; otherwise ABORTED if it differs.
  absl::Status Open(const std::string& session_id, int64_t expected_token_count);
  // Leases a session that does not exist yet; `tail`: tokens that it has after its head state.
  absl::Status OpenNew(const SessionRecord& record, std::vector<int32_t> tail = {});
  // No states on the checkpoint grid, only those that are asked for.
  void DisableCheckpoints() { checkpoint_every_ = 0; }

  void Load(const Done& done);
  // Reads tokens: logged step by step, with states captured on the checkpoint grid.
  void Read(std::vector<int32_t> tokens, const Done& done);
  // Samples tokens, logged and captured likewise. `work` needs its sampling parameters, stop tokens
  // and on_token; the reason why it ended goes to *reason before done.
  void Generate(GenerateWork work, FinishReason* reason, const Done& done);

  // Adds a state at the end to `mutation`, if tokens follow the head, and returns its record.
  absl::StatusOr<std::optional<StateRecord>> StageCapture(
      const Labels& labels, Mutation* mutation, CaptureReason kind = CaptureReason::kTurn);
  // Ends the call's effect: with `checkpoint` captures a state if the session's policy wants one,
  // writes session and answer, and waits until they and all tokens are durable. `make_answer` runs
  // just before, when session() and usage() are final; the answer it returns is kept under the
  // request id.
  using MakeAnswer = std::function<const google::protobuf::Message*()>;
  void Complete(bool checkpoint, const MakeAnswer& make_answer, const Done& done);
  void Complete(Mutation mutation, const MakeAnswer& make_answer, const Done& done);

  // For a call that commits by itself: adds its answer, to be kept under the request id.
  void StageAnswer(const google::protobuf::Message& answer, Mutation* mutation) const {
    claim_.StageAnswer(answer, mutation);
  }

  // INVALID_ARGUMENT if `count` more tokens would pass the context limit.
  absl::Status CheckContext(int64_t count, const std::string& field);

  // Everything the session has read; once loaded, and while no work of this call runs.
  const std::vector<int32_t>& tokens() { return service_->engine->Tokens(lease_->sequence()); }
  int64_t token_count() { return lease_->journal().view().token_count; }
  bool opened() const { return lease_ != nullptr; }
  SessionLease& lease() { return *lease_; }
  const Call& call() const { return *call_; }
  v1::Usage& usage() { return call_->usage; }
  v1::Session session();
  // Lets go of session and request id; also done by the destructor.
  void Release();

 private:
  void AddStats(const WorkStats& stats);
  absl::Status AfterWork(const absl::Status& status);

  ServiceContext* const service_;
  CallPtr call_;
  int64_t checkpoint_every_;
  AnswerBook::Claim claim_;
  SessionLeasePtr lease_;
};

}  // namespace anabranch
