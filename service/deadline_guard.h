// Cancels a streaming call at the server's limit, so that a client without a deadline cannot hold a
// session for ever.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace anabranch {

// Destroy it in the reactor's OnDone: the alarm may fire later, and then finds nothing to cancel.
class DeadlineGuard {
 public:
  // `context` lives until this object is destroyed.
  DeadlineGuard(grpc::CallbackServerContext* context, absl::Time deadline)
      : target_(std::make_shared<Target>()) {
    target_->context = context;
    alarm_.Set(absl::ToChronoTime(deadline), [target = target_](bool fired) {
      absl::MutexLock lock(&target->mutex);
      if (fired && target->context != nullptr) target->context->TryCancel();
    });
  }
  ~DeadlineGuard() {
    {
      absl::MutexLock lock(&target_->mutex);
      target_->context = nullptr;
    }
    alarm_.Cancel();
  }

 private:
  // Shared with the alarm, which may outlive this object.
  struct Target {
    absl::Mutex mutex;
    grpc::CallbackServerContext* context ABSL_GUARDED_BY(mutex) = nullptr;
  };
  std::shared_ptr<Target> target_;
  grpc::Alarm alarm_;
};

}  // namespace anabranch
