#include "service/branch_run.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/generate_request.h"
#include "service/proto_conversion.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Not of the tracker: a branch is a part of one call, which is counted and measured as a whole.
CallPtr CallOfBranch(const Call& whole) {
  auto call = std::make_shared<Call>();
  call->method = whole.method;
  call->tenant = whole.tenant;
  call->start = whole.start;
  call->deadline = whole.deadline;
  call->cancel = whole.cancel;
  return call;
}

}  // namespace

BranchRun::BranchRun(ServiceContext* service, const BranchPlan* plan, const BranchSource* source,
                     const Call& call)
    : service_(service),
      plan_(plan),
      source_(source),
      call_(CallOfBranch(call)),
      session_(std::make_shared<SessionCall>(service, call_)),
      source_tokens_(source->record.head_position + static_cast<int64_t>(source->tail.size())) {
  if (const Tokenizer* tokenizer = service_->model->tokenizer()) {
    text_stream_.emplace(*tokenizer, plan_->stop);
  }
  call_->usage.set_tokens_reused(source_tokens_);
}

absl::Status BranchRun::Open() {
  SessionRecord record = source_->record;
  record.id = record.ref = plan_->name;
  session_->DisableCheckpoints();
  return session_->OpenNew(record, source_->tail);
}

int64_t BranchRun::tokens_wanted() const {
  return static_cast<int64_t>(plan_->input.size()) + plan_->work.max_tokens;
}

double BranchRun::score() const {
  return tokens_.empty() ? 0 : logprob_sum_ / static_cast<double>(tokens_.size());
}

void BranchRun::Run(const SendDelta& on_delta, std::function<void()> on_slot, Done done) {
  on_delta_ = on_delta;
  on_slot_ = std::move(on_slot);
  done_ = std::move(done);
  if (!std::exchange(started_, true)) {
    call_->deadline = std::min(call_->deadline, absl::Now() + plan_->time_limit);
    absl::Status fits = session_->CheckContext(plan_->input.size() + 1, "input");
    if (!fits.ok()) return End(std::move(fits));
  }
  if (session_->lease().sequence() == nullptr) {
    auto sequence = source_->sequence != nullptr
                        ? service_->engine->Fork(source_->sequence)
                        : service_->engine->Restore(source_->image, source_->tokens);
    if (!sequence.ok()) return End(sequence.status());
    session_->lease().sequence() = *std::move(sequence);
  }
  tokens_before_ = session_->token_count();
  const size_t read = std::min<size_t>(tokens_done(), plan_->input.size());
  std::vector<int32_t> rest(plan_->input.begin() + static_cast<ptrdiff_t>(read),
                            plan_->input.end());
  session_->Read(std::move(rest), [self = shared_from_this()](absl::Status status) {
    if (!status.ok()) return self->End(std::move(status));
    if (self->tokens_done() > 0) self->TookSlot();
    self->Generate();
  });
}

void BranchRun::Generate() {
  GenerateWork work = plan_->work;
  work.max_tokens -= static_cast<int64_t>(tokens_.size());
  work.on_token = [this](const GeneratedToken& token) { return OnToken(token); };
  session_->Generate(std::move(work), &reason_, [self = shared_from_this()](absl::Status status) {
    if (status.ok()) self->Flush();
    self->End(std::move(status));
  });
}

void BranchRun::TookSlot() {
  if (!std::exchange(has_slot_, true)) on_slot_();
}

bool BranchRun::OnToken(const GeneratedToken& token) {
  TookSlot();
  v1::BranchDelta delta;
  delta.set_branch(plan_->number);
  delta.add_tokens(token.sampled.token);
  tokens_.push_back(token.sampled.token);
  logprob_sum_ += token.sampled.logprob;
  TextStream::Delta text;
  if (text_stream_) text = text_stream_->Push(token.sampled.token);
  text_ += text.text;
  delta.set_text(std::move(text.text));
  on_delta_(std::move(delta));
  return !text.stopped;
}

// The text that was held back, for characters and stop strings that did not come.
void BranchRun::Flush() {
  if (!text_stream_) return;
  std::string rest = text_stream_->Finish();
  if (rest.empty()) return;
  text_ += rest;
  v1::BranchDelta delta;
  delta.set_branch(plan_->number);
  delta.set_text(std::move(rest));
  on_delta_(std::move(delta));
}

void BranchRun::End(absl::Status status) {
  progressed_ = session_->token_count() > tokens_before_;
  // The callbacks hold what holds this.
  on_delta_ = nullptr;
  on_slot_ = nullptr;
  std::exchange(done_, nullptr)(std::move(status));
}

void BranchRun::Unload() {
  session_->lease().sequence() = nullptr;
  text_stream_.reset();
}

v1::BranchResult BranchRun::Result(const absl::Status& status) {
  v1::BranchResult result;
  result.set_branch(plan_->number);
  result.set_text(text_);
  result.mutable_tokens()->Add(tokens_.begin(), tokens_.end());
  result.set_finish_reason(ToProto(reason_));
  result.set_score(score());
  result.set_token_count(session_->token_count());
  *result.mutable_usage() = call_->usage;
  if (status.ok()) return result;
  result.clear_finish_reason();
  v1::BranchError* error = result.mutable_error();
  error->set_code(static_cast<int32_t>(status.code()));
  error->set_reason(ErrorInfoOf(status).reason());
  error->set_message(std::string(status.message()));
  return result;
}

v1::Session BranchRun::Session() { return session_->session(); }

}  // namespace anabranch
