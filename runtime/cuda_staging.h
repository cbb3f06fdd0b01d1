// Copies between ordinary host memory and a CUDA device at the speed of the link: through two
// pinned buffers, one of which is filled (or emptied) by several threads while the other is in
// flight. The driver's own path for memory that is not pinned reaches a third of that.
//
// Not thread-safe.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/device.h"

namespace anabranch {

class CudaStaging {
 public:
  // All copies are ordered on `stream`, which outlives this.
  static absl::StatusOr<std::unique_ptr<CudaStaging>> Create(cudaStream_t stream);
  ~CudaStaging();
  CudaStaging(const CudaStaging&) = delete;
  CudaStaging& operator=(const CudaStaging&) = delete;

  // Done when they return.
  absl::Status ToDevice(absl::Span<const CopyPart> parts);
  absl::Status ToHost(absl::Span<const CopyPart> parts);

 private:
  // What one pinned buffer carries: pieces of parts, one after the other.
  using Load = std::vector<CopyPart>;

  explicit CudaStaging(cudaStream_t stream) : stream_(stream) {}
  static std::vector<Load> Split(absl::Span<const CopyPart> parts);
  absl::Status Wait(int side);
  void Gather(const Load& load, char* pinned) const;
  void Scatter(const Load& load, const char* pinned) const;

  static constexpr size_t kBytes = size_t{16} << 20;  // of one pinned buffer
  const cudaStream_t stream_;
  char* pinned_[2] = {nullptr, nullptr};
  cudaEvent_t done_[2] = {nullptr, nullptr};
};

}  // namespace anabranch
