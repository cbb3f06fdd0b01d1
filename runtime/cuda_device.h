// The CUDA side of runtime/device.h.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "runtime/device.h"

namespace anabranch {

// UNAVAILABLE if the build has no CUDA, or there is no such device.
absl::StatusOr<std::shared_ptr<Device>> OpenCudaDevice(int ordinal);

}  // namespace anabranch
