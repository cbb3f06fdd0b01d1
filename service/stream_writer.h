// The writing half of a streaming reactor: one write is under way at a time, what is sent meanwhile
// is merged into messages of at most about kMaxMergedBytes, and the last message or error comes
// after them. So a slow reader costs what it has not read yet, and few messages.
#pragma once

#include <grpcpp/grpcpp.h>

#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace anabranch {

// Well below what clients accept (kMaxMessageBytes).
inline constexpr size_t kMaxMergedBytes = 1 << 20;

// `Reactor` is grpc::ServerWriteReactor<Response> or grpc::ServerBidiReactor<..., Response>.
// Thread rule: Send and End may be called from any thread; nothing may follow End.
template <typename Reactor, typename Response>
class StreamWriter : public Reactor {
 public:
  // Final, so that nobody forgets the next write.
  void OnWriteDone(bool ok) final {
    Locked([&] {
      writing_ = false;
      broken_ = broken_ || !ok;
    });
  }

 protected:
  // Adds `later` to `pending`, which is not on its way yet.
  virtual void Merge(Response later, Response* pending) = 0;

  void Send(Response response) {
    Locked([&] {
      if (ending_) return;
      const size_t bytes = response.ByteSizeLong();
      if (pending_.empty() || last_bytes_ + bytes > kMaxMergedBytes) {
        pending_.push_back(std::move(response));
        last_bytes_ = bytes;
      } else {
        Merge(std::move(response), &pending_.back());
        last_bytes_ += bytes;
      }
    });
  }

  // Sends `last` if there is one, then ends the call.
  void End(std::optional<Response> last, const grpc::Status& status) {
    Locked([&] {
      if (ending_) return;
      ending_ = true;
      last_ = std::move(last);
      status_ = status;
    });
  }

 private:
  // Makes a change under the lock, then starts what can be started. The call is ended outside of
  // the lock: gRPC may delete this object, mutex and all, before Finish returns.
  template <typename Change>
  void Locked(Change change) {
    bool end = false;
    {
      absl::MutexLock lock(&mutex_);
      change();
      end = Next();
    }
    if (end) EndCall();
  }

  // Starts the pending message. True, once, when it is time to end the call.
  bool Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return false;
    if (!pending_.empty() && !broken_) {
      current_ = std::move(pending_.front());
      pending_.pop_front();
      writing_ = true;
      this->StartWrite(&current_);
      return false;
    }
    finished_ = ending_;
    return ending_;
  }

  // Nothing else touches the members any more: nothing is being written and nothing will be.
  void EndCall() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (last_ && !broken_) {
      current_ = *std::move(last_);
      this->StartWriteAndFinish(&current_, grpc::WriteOptions(), status_);
    } else {
      this->Finish(status_);
    }
  }

  absl::Mutex mutex_;
  Response current_ ABSL_GUARDED_BY(mutex_);  // on its way; not touched until OnWriteDone
  std::deque<Response> pending_ ABSL_GUARDED_BY(mutex_);
  size_t last_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of pending_.back(), at most
  std::optional<Response> last_ ABSL_GUARDED_BY(mutex_);
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
  // A write is under way; End was called.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false, ending_ ABSL_GUARDED_BY(mutex_) = false;
  // The end is on its way; the client is gone.
  bool finished_ ABSL_GUARDED_BY(mutex_) = false, broken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace anabranch
