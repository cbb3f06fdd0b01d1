// Blocks of host memory that are used again and again: for a device's copies at full speed, which
// needs memory that is slow to get, and without the page faults of fresh memory.
//
// Thread rule: any thread. Blocks may outlive this and the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "runtime/device.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class HostBuffers {
 public:
  // At most `most_bytes` are the device's host memory and kept for later: while all of it is in
  // use, further blocks are ordinary memory.
  HostBuffers(std::shared_ptr<Device> device, uint64_t most_bytes);

  // Of `bytes`, uninitialised; comes back when its last holder is gone. RESOURCE_EXHAUSTED without
  // memory.
  absl::StatusOr<Buffer> Take(size_t bytes);

 private:
  class Kept;

  const std::shared_ptr<Device> device_;
  const std::shared_ptr<Kept> kept_;  // also held by the blocks
};

// From `buffers`, or ordinary memory where they are null.
absl::StatusOr<Buffer> TakeBlock(HostBuffers* buffers, size_t bytes);

}  // namespace anabranch
