// Copies between ordinary or pinned host memory and a CUDA device, one after the other, on a stream
// of their own.
//
// Thread rule: any thread; a copy waits for the one before it.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "runtime/cuda_staging.h"
#include "runtime/device.h"

namespace anabranch {

class CudaCopies {
 public:
  // On the calling thread's current device.
  static absl::StatusOr<std::unique_ptr<CudaCopies>> Create();
  ~CudaCopies();
  CudaCopies(const CudaCopies&) = delete;
  CudaCopies& operator=(const CudaCopies&) = delete;

  // Done when they return. The calling thread has made the device current.
  absl::Status Copy(CopyDirection direction, absl::Span<const CopyPart> parts);
  // Queues it on the stream. The host's side is pinned and left alone until the copy was made.
  absl::Status Queue(absl::Span<const CopyPart> parts);
  // For kernels before or behind a copy; what is queued there comes after earlier copies.
  cudaStream_t stream() const { return stream_; }
  absl::Status Fill(absl::Span<const absl::Span<uint8_t>> blocks, int byte);

 private:
  explicit CudaCopies(cudaStream_t stream) : stream_(stream) {}
  absl::Status CopyStaged(CopyDirection direction, absl::Span<const CopyPart> parts)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const cudaStream_t stream_;
  absl::Mutex mutex_;
  std::unique_ptr<CudaStaging> staging_ ABSL_GUARDED_BY(mutex_);  // made when first needed
};

}  // namespace anabranch
