// A few threads for the host's part in moving states: conversions, checksums and copies of some
// megabytes each. Who calls works, too, and takes all there is if the others are busy or do not get
// a processor: kernels' threads (tensor_memory.h) share out in advance and wait for the slowest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"

namespace anabranch {

// Fewer bytes are not worth another thread.
inline constexpr uint64_t kWorthThreads = uint64_t{1} << 20;

// body(i) for each i in [0, count), of `bytes` bytes of work in all, in any order and on any of the
// threads; done when it returns. Any thread may call it, and several at once.
void ForEachOnHost(uint64_t bytes, size_t count, absl::FunctionRef<void(size_t)> body);

// The same over blocks of bytes: the first error that a call gives, in the order of blocks.
absl::Status ForEachBlock(absl::Span<const std::string> blocks,
                          absl::FunctionRef<absl::Status(size_t)> body);

}  // namespace anabranch
