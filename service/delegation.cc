#include "service/delegation.h"

#include <grpcpp/alarm.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/names.h"
#include "service/session_base.h"
#include "service/state_loading.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// A call alone with what ran out waits so long for others to give some back.
constexpr absl::Duration kPatience = absl::Seconds(30);

void Add(const v1::Usage& from, v1::Usage* to) {
  to->set_tokens_reused(to->tokens_reused() + from.tokens_reused());
  to->set_tokens_read(to->tokens_read() + from.tokens_read());
  to->set_tokens_generated(to->tokens_generated() + from.tokens_generated());
  to->set_state_bytes_stored(to->state_bytes_stored() + from.state_bytes_stored());
  to->set_queue_ms(to->queue_ms() + from.queue_ms());
  to->set_compute_ms(to->compute_ms() + from.compute_ms());
}

}  // namespace

Delegation::Delegation(ServiceContext* service, CallPtr call, const v1::DelegateRequest* request,
                       Events events)
    : service_(service),
      call_(std::move(call)),
      request_(request),
      events_(std::move(events)),
      leader_(std::make_shared<SessionCall>(service, call_)) {}

void Delegation::Start() {
  const auto repeat = Begin();
  if (!repeat.ok()) return Fail(repeat.status());
  if (*repeat) return;
  leader_->Load([self = shared_from_this()](absl::Status status) {
    if (status.ok()) status = self->TakeSource();
    if (!status.ok()) return self->Fail(status);
    self->Pump();
  });
}

// True: the request was answered before, and has been again.
absl::StatusOr<bool> Delegation::Begin() {
  ANABRANCH_RETURN_IF_ERROR(service_->calls->AdmitWork());
  v1::DelegateResponse answered;
  ANABRANCH_ASSIGN_OR_RETURN(
      const bool repeat,
      service_->answers->Begin(call_->tenant, request_->request_id(), &answered, &claim_));
  if (repeat) {
    for (v1::BranchResult& result : *answered.mutable_results()) {
      v1::DelegateResponse response;
      *response.add_results() = std::move(result);
      events_.send(std::move(response));
    }
    answered.clear_results();
    events_.end(absl::OkStatus(), std::move(answered));
    return true;
  }
  ANABRANCH_ASSIGN_OR_RETURN(plan_,
                             ParseDelegateRequest(*request_, *service_->model, service_->limits));
  ANABRANCH_RETURN_IF_ERROR(OpenSource());
  return false;
}

absl::Status Delegation::OpenSource() {
  if (request_->has_session_id()) {
    return leader_->Open(request_->session_id(), request_->expected_token_count());
  }
  ANABRANCH_ASSIGN_OR_RETURN(
      const StateRecord state,
      request_->has_state_id()
          ? ResolveStateId(*service_->store, call_->tenant, request_->state_id())
          : ResolveRefName(*service_->store, call_->tenant, request_->ref_name()));
  ANABRANCH_RETURN_IF_ERROR(CheckModel(state, *service_->model->model()));
  ANABRANCH_RETURN_IF_ERROR(
      CheckTokenCount(state.id, state.token_count, request_->expected_token_count()));
  SessionRecord record;
  record.tenant = call_->tenant;
  record.id = RandomSessionId();
  record.fingerprint = state.fingerprint;
  record.head_state = state.id;
  record.head_position = state.token_count;
  record.base = BareCore(state);
  leader_is_new_ = true;
  return leader_->OpenNew(record);
}

// A fork of the source is all that the branches need: the session itself is free again at once. It
// holds a slot, so where there is only one they start from the source's state instead.
absl::Status Delegation::TakeSource() {
  const std::vector<int32_t> tokens = leader_->tokens();
  ANABRANCH_RETURN_IF_ERROR(
      EncodeInputs(*request_, *service_->model, service_->limits, tokens, &plan_));
  const SequencePtr& sequence = leader_->lease().sequence();
  if (service_->engine->stats().slots.slots_total > 1) {
    ANABRANCH_ASSIGN_OR_RETURN(source_.sequence, service_->engine->Fork(sequence));
  } else {
    ANABRANCH_ASSIGN_OR_RETURN(source_.image, service_->engine->Capture(sequence));
    source_.tokens = tokens;
  }
  const SessionView view = leader_->lease().journal().view();
  source_.tail = leader_->lease().journal().tail();
  SessionRecord& record = source_.record;
  record.tenant = call_->tenant;
  record.fingerprint = view.record.fingerprint;
  record.head_state = view.record.head_state;
  record.head_position = view.record.head_position;
  record.base = view.record.base;
  record.labels = plan_.labels;
  record.created = record.updated = absl::Now();
  if (leader_is_new_) leader_->lease().Discard();
  leader_->Release();
  keeper_.emplace(service_->store, call_->tenant, &plan_);
  for (const BranchPlan& plan : plan_.branches) {
    branches_.push_back(std::make_shared<BranchRun>(service_, &plan, &source_, *call_));
    ANABRANCH_RETURN_IF_ERROR(branches_.back()->Open());
  }
  absl::MutexLock lock(&mutex_);
  waiting_.assign(branches_.begin(), branches_.end());
  return absl::OkStatus();
}

// Starts branches as long as there is room for them; ends the call after the last. May be called
// whenever something has changed.
void Delegation::Pump() {
  {
    absl::MutexLock lock(&mutex_);
    pump_again_ = true;
    if (std::exchange(pumping_, true)) return;
  }
  while (true) {
    MakeRoom();
    std::shared_ptr<BranchRun> next;
    bool over = false;
    {
      absl::MutexLock lock(&mutex_);
      next = NextToRun();
      if (next == nullptr && std::exchange(pump_again_, false)) continue;
      if (next == nullptr) {
        pumping_ = false;
        over = waiting_.empty() && running_ == 0 && !std::exchange(finished_, true);
      }
    }
    if (over) return Finish();
    if (next == nullptr) return;
    RunBranch(next);
  }
}

std::shared_ptr<BranchRun> Delegation::NextToRun() {
  if (waiting_.empty()) return nullptr;
  // Once the call is over, the rest starts only to be told so.
  if (call_->Interrupted().ok() && (blocked_ || !HasRoom(*waiting_.front()))) return nullptr;
  std::shared_ptr<BranchRun> next = std::move(waiting_.front());
  waiting_.pop_front();
  ++running_;
  ++without_slot_;
  tokens_promised_ += next->tokens_wanted();
  return next;
}

// A branch takes its slot with its first token, and pages as it goes. Promising more than there is
// would not be wrong, because a branch that finds none waits; it would only waste work.
bool Delegation::HasRoom(const BranchRun& next) {
  if (running_ == 0) return true;
  const SlotPool::Usage usage = service_->engine->stats().slots;
  if (usage.slots_total - usage.slots_used <= without_slot_) return false;
  if (usage.pages_total == 0) return true;
  const int64_t promised = tokens_promised_ + next.tokens_wanted();
  return usage.pages_used + promised / kKvPageTokens + 2 * (running_ + 1) <= usage.pages_total;
}

// Idle sessions leave their slots to the branches.
void Delegation::MakeRoom() {
  int32_t wanted = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (waiting_.empty()) return;
    wanted = without_slot_ + 1;
  }
  service_->sessions->MakeRoom(wanted).IgnoreError();
}

void Delegation::RunBranch(const std::shared_ptr<BranchRun>& branch) {
  const absl::Status interrupted = call_->Interrupted();
  if (!interrupted.ok()) return BranchStopped(branch, interrupted);
  branch->Run(
      [self = shared_from_this()](v1::BranchDelta delta) {
        v1::DelegateResponse response;
        *response.add_deltas() = std::move(delta);
        self->events_.send(std::move(response));
      },
      [self = shared_from_this()] {
        absl::MutexLock lock(&self->mutex_);
        --self->without_slot_;
      },
      [self = shared_from_this(), branch](const absl::Status& status) {
        self->BranchStopped(branch, status);
      });
}

void Delegation::BranchStopped(const std::shared_ptr<BranchRun>& branch,
                               const absl::Status& status) {
  const bool waits = MustWait(*branch, status);
  // It counts as running until its result is sent: the call ends after the last one.
  if (!waits) Conclude(branch, status);
  {
    absl::MutexLock lock(&mutex_);
    --running_;
    if (!branch->has_slot()) --without_slot_;
    tokens_promised_ -= branch->tokens_wanted();
    blocked_ = waits;
    if (waits) waiting_.push_front(branch);
  }
  if (waits) return PumpLater();
  Pump();
}

bool Delegation::MustWait(const BranchRun& branch, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  const bool exhausted = absl::IsResourceExhausted(status);
  if (!exhausted || branch.progressed() || running_ > 1) {
    stuck_since_ = absl::InfiniteFuture();
  } else {
    stuck_since_ = std::min(stuck_since_, absl::Now());
  }
  return exhausted && absl::Now() - stuck_since_ < kPatience;
}

// Slots that other calls hold come back without a word, hence the clock.
void Delegation::PumpLater() {
  auto alarm = std::make_shared<grpc::Alarm>();
  alarm->Set(absl::ToChronoTime(absl::Now() + absl::Milliseconds(10)),
             [self = shared_from_this(), alarm](bool) {
               self->service_->pool->Run([self] {
                 {
                   absl::MutexLock lock(&self->mutex_);
                   self->blocked_ = false;
                 }
                 self->Pump();
               });
             });
}

void Delegation::Conclude(const std::shared_ptr<BranchRun>& branch, const absl::Status& status) {
  absl::Status ended = status;
  if (ended.ok()) ended = keeper_->Offer(branch);
  branch->Unload();
  v1::DelegateResponse response;
  *response.add_results() = branch->Result(ended);
  {
    absl::MutexLock lock(&mutex_);
    *results_.add_results() = response.results(0);
  }
  events_.send(std::move(response));
}

void Delegation::Finish() {
  const absl::Status interrupted = call_->Interrupted();
  if (!interrupted.ok()) return Fail(interrupted);
  v1::DelegateResponse answer;
  {
    absl::MutexLock lock(&mutex_);
    answer = std::move(results_);
  }
  v1::DelegateDone* done = answer.mutable_done();
  Mutation mutation;
  keeper_->StageSessions(&mutation, done);
  int32_t failed = 0;
  for (const v1::BranchResult& result : answer.results()) {
    Add(result.usage(), &call_->usage);
    failed += result.has_error() ? 1 : 0;
  }
  done->set_failed_count(failed);
  *done->mutable_usage() = call_->usage;
  claim_.StageAnswer(answer, &mutation);
  if (!mutation.operations.empty()) {
    const absl::Status written = WriteError(service_->store->CommitAndWait(std::move(mutation)));
    if (!written.ok()) return Fail(written);
  }
  CloseBranches();
  answer.clear_results();
  events_.end(absl::OkStatus(), std::move(answer));
}

void Delegation::Fail(const absl::Status& status) {
  if (keeper_) keeper_->Abandon();
  if (leader_is_new_ && leader_->opened()) leader_->lease().Discard();
  leader_->Release();
  CloseBranches();
  events_.end(status, std::nullopt);
}

void Delegation::CloseBranches() {
  for (const auto& branch : branches_) branch->session().Release();
  source_.sequence = nullptr;
  claim_ = AnswerBook::Claim();
}

}  // namespace anabranch
