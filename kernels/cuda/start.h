// Starts a kernel on the stream of a launch. Only .cu files include it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

#include "absl/status/status.h"
#include "kernels/cuda/context.h"
#include "kernels/launch.h"

namespace anabranch::kernels::cuda {

// The dynamic shared memory of a block, aligned for anything.
__device__ inline void* DynamicShared() {
  extern __shared__ __align__(1024) unsigned char shared[];
  return shared;
}

// `shared` bytes of dynamic shared memory; more than 48 KB are asked for first. An error names
// `what`. Nothing happens for an empty grid.
template <class... Params>
absl::Status Start(const Launch& launch, const char* what, void (*kernel)(Params...), dim3 grid,
                   dim3 block, size_t shared, std::type_identity_t<Params>... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return absl::OkStatus();
  const void* function = reinterpret_cast<const void*>(kernel);
  constexpr size_t kAlwaysAllowed = 48 * 1024;
  if (shared > kAlwaysAllowed) {
    absl::Status s =
        CudaStatus(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(shared)),
                   what);
    if (!s.ok()) return s;
  }
  void* pointers[] = {&args...};
  return CudaStatus(
      cudaLaunchKernel(function, grid, block, pointers, shared, launch.cuda->stream()), what);
}

}  // namespace anabranch::kernels::cuda
