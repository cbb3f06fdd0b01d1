// Copies of a sequence's state as it is after rows inside a launch. The kernel that walks the rows
// writes them where it passes, so a launch need not end at a row for the state there to be kept,
// and what else it computes keeps its bits. Where they go is said beside each kernel's state.
#pragma once

#include <cstdint>

namespace anabranch::kernels {

// The arrays lie where the kernel runs; the count is for the host, too.
struct Checkpoints {
  int32_t count = 0;
  const int32_t* row = nullptr;    // [count] rows of the launch, ascending
  const int32_t* place = nullptr;  // [count] entry of the ring that gets the state after that row
  // [count], not 0: recurrent tensors go there packed (kernels/packed_state.h). Null: none does.
  const uint8_t* packed = nullptr;

  // Index of the first checkpoint at or after `from`, `count` if there is none.
#ifdef __CUDACC__
  __host__ __device__
#endif
      int32_t
      FirstFrom(int64_t from) const {
    int32_t low = 0, high = count;
    while (low < high) {
      const int32_t middle = low + (high - low) / 2;
      if (row[middle] < from) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

}  // namespace anabranch::kernels
