// Cancellation stops running calls from another thread:
//
//   anabranch::Cancellation stop;
//   std::thread watcher([&] { WaitForCtrlC(); stop.Cancel(); });
//   client.Generate(request, on_delta, &stop);  // CANCELLED soon after Cancel()
//
// Thread-safe. One object may serve many calls; once cancelled it cancels every later call too. It
// must outlive the calls that it was passed to.
#pragma once

#include <functional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

namespace anabranch {

class Cancellation {
 public:
  void Cancel() {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    for (auto& [key, stop] : running_) stop();
  }

  bool cancelled() const {
    absl::MutexLock lock(&mutex_);
    return cancelled_;
  }

  // Waits until cancelled or `limit` has passed; true if cancelled.
  bool WaitFor(absl::Duration limit) const {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&cancelled_), limit);
  }

  // Registers a running call for the lifetime of the object. `cancellation` may be null.
  class Scope {
   public:
    Scope(Cancellation* cancellation, std::function<void()> stop) : owner_(cancellation) {
      if (owner_ == nullptr) return;
      absl::MutexLock lock(&owner_->mutex_);
      if (owner_->cancelled_) stop();
      owner_->running_[this] = std::move(stop);
    }
    ~Scope() {
      if (owner_ == nullptr) return;
      absl::MutexLock lock(&owner_->mutex_);
      owner_->running_.erase(this);
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Cancellation* owner_;
  };

 private:
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::flat_hash_map<const Scope*, std::function<void()>> running_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch
