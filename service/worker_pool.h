// A few threads for work that may block: disk reads, commits, capturing and restoring states.
// gRPC and engine callbacks hand work over here and return.
//
// Thread rule: every member may be called from any thread.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace anabranch {

class WorkerPool {
 public:
  // `max_queued`: beyond it TryRun refuses.
  WorkerPool(int threads, int max_queued);
  // Runs what is queued, then joins.
  ~WorkerPool();

  // Starts a call: false if the queue is full, and the task is dropped.
  bool TryRun(std::function<void()> task);
  // Continues a call that was admitted: never refused. At most a few tasks exist per running call,
  // so admission bounds this too.
  void Run(std::function<void()> task);

 private:
  void Loop();

  const size_t max_queued_;
  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace anabranch
