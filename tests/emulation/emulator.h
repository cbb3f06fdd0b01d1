// Runs CUDA kernels on the CPU, for tests: what a kernel computes is checked where there is no GPU.
// Each thread of a block is a fiber of the calling thread; blocks run one after the other. Every
// access is in the order of the program and seen at once, so a missing barrier or a race can stay
// unseen here; wrong indexes, sums, layouts and shuffles cannot. Nothing is known of time.
//
// Not thread-safe: one grid runs at a time in a process.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstring>

#include "absl/functional/function_ref.h"

// Of the running thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace anabranch::emulation {

inline constexpr int kLanes = 32;

// Calls `body` as every thread of a grid. Blocks are of one or two dimensions. `shared`: bytes of
// SharedMemory, which begin as NaN in every block. Threads that wait for each other without end
// abort the process with a message.
void RunGrid(dim3 grid, dim3 block, size_t shared, absl::FunctionRef<void()> body);

void* SharedMemory();

// Until all threads of the block, or of the warp, that have not ended are here.
void WaitForBlock();
void WaitForWarp();

// As the CUDA runtime: an error, which cudaGetLastError tells too, for a kernel that takes more
// than 48 KB of dynamic shared memory and was not allowed to by cudaFuncSetAttribute.
cudaError_t CheckStart(const void* kernel, size_t shared);

// What lane `lane` of the warp passes, whose threads all call this.
inline constexpr size_t kMostBytes = 64;
char* LaneBuffer(int lane);
int Lane();
template <class T>
T FromLane(const T& value, int lane) {
  static_assert(sizeof(T) <= kMostBytes);
  std::memcpy(LaneBuffer(Lane()), &value, sizeof(T));
  WaitForWarp();
  T out;
  std::memcpy(&out, LaneBuffer(lane), sizeof(T));
  WaitForWarp();  // before anyone passes something else
  return out;
}
// The same over a block: how many threads pass true.
int CountOfBlock(bool value);

}  // namespace anabranch::emulation
