// A server stream that makes one message at a time: the next one only when the client has taken the
// one before, each on the worker pool. So a slow reader costs one message, whatever the stream is
// of, and no thread waits for it.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/grpcpp.h>

#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "service/deadline_guard.h"
#include "service/error_info.h"
#include "service/service_context.h"
#include "service/status_mapping.h"

namespace anabranch {

// Deletes itself when gRPC is done with it. A final class calls Begin() at the end of its
// constructor.
template <typename Response>
class PullStream : public grpc::ServerWriteReactor<Response> {
 public:
  // `cap`: of the client's deadline.
  PullStream(ServiceContext* service, grpc::CallbackServerContext* context, const char* name,
             absl::Duration cap)
      : service_(service),
        call_(service->calls->Begin(name, TenantOf(*context), CappedDeadline(*context, cap))),
        guard_(context, call_->deadline) {}

  void OnWriteDone(bool ok) final {
    if (!ok) return End(absl::CancelledError("the client is gone"));
    if (pause_ == absl::ZeroDuration()) return service_->pool->Run([this] { Step(); });
    alarm_.Set(absl::ToChronoTime(absl::Now() + std::exchange(pause_, absl::ZeroDuration())),
               [this](bool) { service_->pool->Run([this] { Step(); }); });
  }
  void OnCancel() override { call_->cancel->Cancel(); }
  void OnDone() override { delete this; }

 protected:
  // Fills the next message; false when there is none. Runs on the worker pool and may block.
  virtual absl::StatusOr<bool> Next(Response* response) = 0;

  void Begin() {
    if (service_->pool->TryRun([this] { Step(); })) return;
    End(ErrorWithReason(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                        "too many calls are waiting: retry later"));
  }
  // Waits before the message after this one, without holding a thread.
  void PauseFor(absl::Duration pause) { pause_ = pause; }

  ServiceContext* const service_;
  const CallPtr call_;

 private:
  void Step() {
    const absl::Status interrupted = call_->Interrupted();
    if (!interrupted.ok()) return End(interrupted);
    response_.Clear();
    const absl::StatusOr<bool> more = Next(&response_);
    if (!more.ok() || !*more) return End(more.status());
    this->StartWrite(&response_);
  }
  // Once; nothing may touch this object afterwards.
  void End(absl::Status status) {
    call_->status = std::move(status);
    this->Finish(ToGrpcStatus(call_->status));
  }

  DeadlineGuard guard_;
  Response response_;
  absl::Duration pause_ = absl::ZeroDuration();
  grpc::Alarm alarm_;
};

}  // namespace anabranch
