// States coded on a CUDA device (runtime/state_coder.h): kernels write the stored bytes into a
// block of device memory that one copy takes over the link, or read them from it.
//
// Thread rule: any thread; each way, one state waits for the one before it.
#pragma once

#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "kernels/cuda/context.h"
#include "runtime/cuda_copies.h"
#include "runtime/device.h"
#include "runtime/state_coder.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class CudaStateCoder final : public StateCoder {
 public:
  // `device` allocates, `context` is its own; they and the lanes (of states, each way) outlive
  // this.
  CudaStateCoder(Device* device, const kernels::CudaContext* context, CudaCopies* to_host,
                 CudaCopies* to_device)
      : device_(device), context_(context), to_host_(to_host), to_device_(to_device) {}

  absl::Status ToHost(absl::Span<const TensorCoding> tensors,
                      absl::Span<CodingMeasure> measures) override;
  absl::Status ToDevice(absl::Span<const TensorCoding> tensors) override;

 private:
  // Of one way: a block of stored bytes and the measures of the tensors in it, on the device; and
  // measures in pinned memory. `heads`: measures of what the scans have packed.
  struct Staged {
    Buffer bytes, measures, host_measures, heads, host_heads;
  };
  // Queues it. Measures will lie in out_.host_measures: of the tensors `measured`, in that order.
  absl::Status Encode(absl::Span<const TensorCoding> tensors, std::vector<size_t>& measured)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(out_mutex_);
  absl::Status FetchMeasures(absl::Span<const TensorCoding> tensors)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(out_mutex_);
  absl::Status Decode(absl::Span<const TensorCoding> tensors)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(in_mutex_);

  Device* const device_;
  const kernels::CudaContext* const context_;
  CudaCopies *const to_host_, *const to_device_;
  absl::Mutex out_mutex_, in_mutex_;
  Staged out_ ABSL_GUARDED_BY(out_mutex_), in_ ABSL_GUARDED_BY(in_mutex_);
};

}  // namespace anabranch
