// How far a step has come where the model runs, for a thread that takes away what its layers leave
// (states at checkpoints) while later layers still run.
//
// Thread rule: Passed and End belong to the thread that runs the step, Await to any other.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/device.h"

namespace anabranch {

class StepProgress {
 public:
  static constexpr int32_t kAllLayers = std::numeric_limits<int32_t>::max();

  // All of the layers up to `layer` is queued on the device.
  absl::Status Passed(Device& device, int32_t layer);
  // The step is over, well or not; nothing of it is queued any more.
  void End();

  // Until what `layer` leaves is there: the last layer of which that is known; kAllLayers when the
  // step is over, or the error of the device.
  absl::StatusOr<int32_t> Await(int32_t layer);

 private:
  absl::Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  // By layer; null marks where queued work is done at once.
  std::vector<std::pair<int32_t, std::shared_ptr<DeviceMark>>> marks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch
