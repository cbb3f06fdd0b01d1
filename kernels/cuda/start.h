// Starts a kernel on the stream of a launch. Only .cu files include it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <type_traits>

#include "absl/status/status.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/ptx.h"
#include "kernels/launch.h"

namespace anabranch::kernels::cuda {

// For the short kernels of a step, whose starts would cost as much as their work. A kernel begun
// with StartEarly may run beside the kernels ahead of it. It calls LetNextStart, and WaitForInputs
// in every thread before it reads what they write or writes what they read; before that it may
// read weights (both are in ptx.h). LetNextStart: from there on the kernel behind may be started,
// once every block has come there; it takes what room there is and waits for its inputs. Soonest is
// best. WaitForInputs: until the kernels ahead have ended and what they wrote can be seen.

inline cudaLaunchConfig_t ConfigOf(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  return config;
}

enum class How { kInOrder, kEarly, kBeside };

// An error names `what`. Nothing happens for an empty grid. More than 48 KB of dynamic shared
// memory are asked for first.
template <class... Params>
absl::Status StartWith(How how, const Launch& launch, const char* what, void (*kernel)(Params...),
                       dim3 grid, dim3 block, size_t shared, std::type_identity_t<Params>... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return absl::OkStatus();
  constexpr size_t kAlwaysAllowed = 48 * 1024;
  if (shared > kAlwaysAllowed) {
    absl::Status s = CudaStatus(
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        what);
    if (!s.ok()) return s;
  }
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = ConfigOf(
      grid, block, shared, how == How::kBeside ? launch.cuda->beside() : launch.cuda->stream());
  config.attrs = &overlap;
  config.numAttrs = how == How::kEarly && launch.cuda->starts_early() ? 1 : 0;
  return CudaStatus(StartKernel(config, kernel, args...), what);
}

// On any stream: kernel<<<grid, block, shared, stream>>>(args...). LaunchStatus tells its errors.
// At most 48 KB of dynamic shared memory.
template <class... Params>
void StartOn(cudaStream_t stream, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared,
             std::type_identity_t<Params>... args) {
  (void)StartKernel(ConfigOf(grid, block, shared, stream), kernel, args...);
}

// For kernels that know nothing of each other: each begins when the one before has ended.
template <class... Params>
absl::Status Start(const Launch& launch, const char* what, void (*kernel)(Params...), dim3 grid,
                   dim3 block, size_t shared, std::type_identity_t<Params>... args) {
  return StartWith(How::kInOrder, launch, what, kernel, grid, block, shared, args...);
}
// On the context's second stream: the caller says what it waits for and who waits for it.
template <class... Params>
absl::Status StartBeside(const Launch& launch, const char* what, void (*kernel)(Params...),
                         dim3 grid, dim3 block, size_t shared,
                         std::type_identity_t<Params>... args) {
  return StartWith(How::kBeside, launch, what, kernel, grid, block, shared, args...);
}
// For kernels that call WaitForInputs.
template <class... Params>
absl::Status StartEarly(const Launch& launch, const char* what, void (*kernel)(Params...),
                        dim3 grid, dim3 block, size_t shared,
                        std::type_identity_t<Params>... args) {
  return StartWith(How::kEarly, launch, what, kernel, grid, block, shared, args...);
}

}  // namespace anabranch::kernels::cuda
