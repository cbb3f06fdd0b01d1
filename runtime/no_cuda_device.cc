// In builds without CUDA.
#include "absl/status/status.h"
#include "runtime/cuda_device.h"

namespace anabranch {

absl::StatusOr<std::shared_ptr<Device>> OpenCudaDevice(int) {
  return absl::UnavailableError(
      "this build has no CUDA; build where nvcc is on PATH, or use the device cpu");
}

}  // namespace anabranch
