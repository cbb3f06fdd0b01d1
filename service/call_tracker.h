// Which calls run, whether new ones are welcome, and what each one cost when it ended.
//
// Thread rule: every member may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "anabranch/v1/resources.pb.h"
#include "runtime/engine.h"
#include "service/metrics.h"

namespace anabranch {

// One call: its name, tenant, limits in time and cost so far. Shared by the reactor and the work it
// started; ends when the last of them lets go.
struct Call {
  std::string method, tenant;
  absl::Time start, deadline;
  std::shared_ptr<CancelToken> cancel = std::make_shared<CancelToken>();
  v1::Usage usage;      // written by one thread at a time, as the call moves on
  absl::Status status;  // how it ended

  WorkOptions work_options() const { return WorkOptions{deadline, cancel}; }
  // CANCELLED or DEADLINE_EXCEEDED once either has happened.
  absl::Status Interrupted() const;
};
using CallPtr = std::shared_ptr<Call>;

class CallTracker {
 public:
  explicit CallTracker(Metrics* metrics) : metrics_(metrics) {}

  // A call begins; it is counted, measured and logged when the last reference to it goes.
  CallPtr Begin(const std::string& method, const std::string& tenant, absl::Time deadline);

  // UNAVAILABLE (DRAINING) once Drain was called: for calls that run the model or change something.
  absl::Status AdmitWork() const;
  void StartDraining();
  bool draining() const;
  int running() const;
  // Waits until no call runs; false if some still do after `timeout`.
  bool WaitUntilIdle(absl::Duration timeout) const;

 private:
  void End(const Call& call);

  Metrics* const metrics_;
  mutable absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace anabranch
