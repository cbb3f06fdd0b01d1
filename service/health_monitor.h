// Keeps grpc.health.v1 true to the state of the server: the whole server and Sessions are
// NOT_SERVING while the library refuses writes and for good once the engine has lost its device,
// everything is while draining; States and Admin go on serving reads.
#pragma once

#include <grpcpp/health_check_service_interface.h>

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "statestore/state_store.h"

namespace anabranch {

class HealthMonitor {
 public:
  // Looks at library and engine a few times a second. All outlive this; `engine` says whether it
  // runs, from any thread.
  HealthMonitor(grpc::HealthCheckServiceInterface* health, const StateStore* store,
                std::function<absl::Status()> engine);
  ~HealthMonitor();

  // Everything NOT_SERVING, for good.
  void StartDraining();
  // Why the engine runs no more.
  absl::Status engine_failure() const;
  // Serving, and writes are accepted.
  bool healthy() const;

 private:
  void Loop();
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  grpc::HealthCheckServiceInterface* const health_;
  const StateStore* const store_;
  const std::function<absl::Status()> engine_;
  mutable absl::Mutex mutex_;
  bool writable_ ABSL_GUARDED_BY(mutex_) = true;
  absl::Status engine_failure_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace anabranch
