// Blocks of host memory that are used again and again: for a device's copies at full speed, which
// needs memory that is slow to get, and without the page faults of fresh memory.
//
// Thread rule: any thread. Blocks may outlive this and the device.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "runtime/device.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class HostBuffers {
 public:
  // Of `bytes` each. At most `most` blocks are the device's host memory and kept for later: while
  // all of them are in use, further ones are ordinary memory.
  HostBuffers(std::shared_ptr<Device> device, size_t bytes, int most);

  // Uninitialised; comes back when its last holder is gone. RESOURCE_EXHAUSTED without memory.
  absl::StatusOr<Buffer> Take();
  // The same for `bytes`: ordinary memory if the blocks have less.
  absl::StatusOr<Buffer> Take(size_t bytes);

 private:
  class Kept;

  const std::shared_ptr<Device> device_;
  const size_t bytes_;
  const std::shared_ptr<Kept> kept_;  // also held by the blocks
};

}  // namespace anabranch
