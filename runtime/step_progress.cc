#include "runtime/step_progress.h"

#include <algorithm>

#include "statestore/base/status_macros.h"

namespace anabranch {

absl::Status StepProgress::Passed(Device& device, int32_t layer) {
  ANABRANCH_ASSIGN_OR_RETURN(std::shared_ptr<DeviceMark> mark, device.Mark());
  absl::MutexLock lock(&mutex_);
  marks_.emplace_back(layer, std::move(mark));
  return absl::OkStatus();
}

void StepProgress::End() {
  absl::MutexLock lock(&mutex_);
  ended_ = true;
}

absl::StatusOr<int32_t> StepProgress::Await(int32_t layer) {
  std::pair<int32_t, std::shared_ptr<DeviceMark>> passed;
  {
    absl::MutexLock lock(&mutex_);
    const auto known = [this, layer]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return ended_ || (!marks_.empty() && marks_.back().first >= layer);
    };
    mutex_.Await(absl::Condition(&known));
    if (ended_) return kAllLayers;
    passed = *std::lower_bound(marks_.begin(), marks_.end(), layer,
                               [](const auto& mark, int32_t l) { return mark.first < l; });
  }
  // Without the lock: later layers are marked meanwhile.
  if (passed.second != nullptr) ANABRANCH_RETURN_IF_ERROR(passed.second->Wait());
  absl::MutexLock lock(&mutex_);
  for (const auto& [further, mark] : marks_) {
    if (further <= passed.first) continue;
    if (mark != nullptr && !mark->reached()) break;
    passed.first = further;
  }
  return passed.first;
}

}  // namespace anabranch
