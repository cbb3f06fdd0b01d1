#include "service/call_tracker.h"

#include "absl/time/clock.h"
#include "service/error_info.h"
#include "service/logging.h"
#include "service/status_mapping.h"

namespace anabranch {

absl::Status Call::Interrupted() const {
  if (absl::Now() >= deadline) {
    return ErrorWithReason(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                           "the call's deadline, or the server's limit for it, has passed");
  }
  if (cancel->cancelled()) {
    return ErrorWithReason(absl::StatusCode::kCancelled, "CANCELLED", "the call was cancelled");
  }
  return absl::OkStatus();
}

CallPtr CallTracker::Begin(const std::string& method, const std::string& tenant,
                           absl::Time deadline) {
  {
    absl::MutexLock lock(&mutex_);
    ++running_;
  }
  CallPtr call(new Call, [this](Call* ended) {
    End(*ended);
    delete ended;
  });
  call->method = method;
  call->tenant = tenant;
  call->start = absl::Now();
  call->deadline = deadline;
  return call;
}

absl::Status CallTracker::AdmitWork() const {
  absl::MutexLock lock(&mutex_);
  if (!draining_) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kUnavailable, "DRAINING",
                         "the server is shutting down: retry on its successor");
}

void CallTracker::StartDraining() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

bool CallTracker::draining() const {
  absl::MutexLock lock(&mutex_);
  return draining_;
}

int CallTracker::running() const {
  absl::MutexLock lock(&mutex_);
  return running_;
}

bool CallTracker::WaitUntilIdle(absl::Duration timeout) const {
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return running_ == 0; };
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&idle), timeout);
}

void CallTracker::End(const Call& call) {
  const absl::Duration latency = absl::Now() - call.start;
  metrics_->RecordCall(call.method, call.status.code(), latency, call.usage);
  LogFields fields = {{"method", call.method},
                      {"code", std::string(CodeName(call.status.code()))},
                      {"ms", absl::ToDoubleMilliseconds(latency)},
                      {"reused", int64_t{call.usage.tokens_reused()}},
                      {"replayed", int64_t{call.usage.tokens_replayed()}},
                      {"read", int64_t{call.usage.tokens_read()}},
                      {"generated", int64_t{call.usage.tokens_generated()}}};
  if (!call.status.ok()) fields.push_back({"reason", ErrorInfoOf(call.status).reason()});
  const bool ours = call.status.code() == absl::StatusCode::kInternal ||
                    call.status.code() == absl::StatusCode::kDataLoss;
  if (ours) fields.push_back({"error", std::string(call.status.message())});
  LogEvent(ours ? LogLevel::kError : LogLevel::kInfo, "call", fields);
  absl::MutexLock lock(&mutex_);
  --running_;
}

}  // namespace anabranch
