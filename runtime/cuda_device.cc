#include "runtime/cuda_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cuda_kernels.h"
#include "runtime/cuda_staging.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using kernels::CudaContext;
using kernels::CudaStatus;

cudaMemcpyKind KindOf(CopyDirection direction) {
  switch (direction) {
    case CopyDirection::kToDevice:
      return cudaMemcpyHostToDevice;
    case CopyDirection::kToHost:
      return cudaMemcpyDeviceToHost;
    case CopyDirection::kWithin:
      break;
  }
  return cudaMemcpyDeviceToDevice;
}

// Whether the host's side is ordinary memory, and there is enough of it to be worth threads.
bool WorthStaging(absl::Span<const CopyPart> parts) {
  constexpr size_t kLeast = size_t{1} << 20;
  size_t bytes = 0;
  for (const CopyPart& part : parts) bytes += part.bytes;
  if (bytes < kLeast) return false;
  // The device's side counts as known to the driver, so that both are asked the same.
  const auto known = [](const void* pointer) {
    cudaPointerAttributes attributes;
    return cudaPointerGetAttributes(&attributes, pointer) == cudaSuccess &&
           attributes.type != cudaMemoryTypeUnregistered;
  };
  return !known(parts.front().from) || !known(parts.front().to);
}

// A recorded step. The scratch that it used may have moved since.
struct Recorded {
  int64_t runs = 0;
  cudaGraphExec_t graph = nullptr;
  uint64_t scratch_generation = 0;
};

class CudaDevice final : public Device {
 public:
  CudaDevice(std::unique_ptr<CudaContext> context, cudaStream_t copies,
             std::unique_ptr<CudaStaging> staging)
      : context_(std::move(context)), copies_(copies), staging_(std::move(staging)) {}
  ~CudaDevice() override {
    (void)context_->Use();
    ForgetReplays();
    staging_.reset();
    cudaStreamDestroy(copies_);
  }

  const char* kind() const override { return "cuda"; }
  bool in_host_memory() const override { return false; }
  kernels::DType activations(kernels::DType compute) const override { return compute; }
  const kernels::KernelSet& kernels() const override { return kernels::cuda::Kernels(); }
  kernels::Launch launch() const override { return {.cuda = context_.get()}; }
  absl::StatusOr<MemoryBudget> AvailableMemory() const override;

  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  absl::StatusOr<Buffer> AllocateHost(size_t bytes) override;
  absl::Status Copy(CopyDirection direction, absl::Span<const CopyPart> parts) override;
  absl::Status Fill(absl::Span<const absl::Span<uint8_t>> blocks, int byte) override;
  absl::Status Queue(CopyDirection direction, const CopyPart& part) override {
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    return CudaStatus(
        cudaMemcpyAsync(part.to, part.from, part.bytes, KindOf(direction), context_->stream()),
        "copy");
  }

  absl::Status Replay(int64_t key, absl::FunctionRef<absl::Status()> work) override;
  void ForgetReplays() override;
  absl::Status Wait() override {
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    return CudaStatus(cudaStreamSynchronize(context_->stream()), "step");
  }

 private:
  absl::Status Record(Recorded& recorded, absl::FunctionRef<absl::Status()> work);

  const std::unique_ptr<CudaContext> context_;
  // Copies have a stream of their own, so that a thread that captures or restores a state does not
  // wait for a step. Sequences that are copied are not in a step: the engine sees to that.
  const cudaStream_t copies_;
  std::unique_ptr<CudaStaging> staging_;  // used while copying_ is held
  absl::Mutex
      copying_;  // one copy at a time: they share a link, and end sooner one after the other
  absl::flat_hash_map<int64_t, Recorded> recorded_;  // by key
};

absl::StatusOr<MemoryBudget> CudaDevice::AvailableMemory() const {
  ANABRANCH_RETURN_IF_ERROR(context_->Use());
  size_t available = 0, total = 0;
  ANABRANCH_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&available, &total), "memory"));
  return MemoryBudget{available, "the GPU"};
}

absl::StatusOr<Buffer> CudaDevice::Allocate(size_t bytes) {
  ANABRANCH_RETURN_IF_ERROR(context_->Use());
  void* data = nullptr;
  ANABRANCH_RETURN_IF_ERROR(
      CudaStatus(cudaMalloc(&data, std::max<size_t>(bytes, 1)), "device memory"));
  return Buffer(std::shared_ptr<void>(data, [](void* p) { cudaFree(p); }), data, bytes);
}

absl::StatusOr<Buffer> CudaDevice::AllocateHost(size_t bytes) {
  ANABRANCH_RETURN_IF_ERROR(context_->Use());
  void* data = nullptr;
  ANABRANCH_RETURN_IF_ERROR(
      CudaStatus(cudaMallocHost(&data, std::max<size_t>(bytes, 1)), "pinned memory"));
  return Buffer(std::shared_ptr<void>(data, [](void* p) { cudaFreeHost(p); }), data, bytes);
}

absl::Status CudaDevice::Copy(CopyDirection direction, absl::Span<const CopyPart> parts) {
  ANABRANCH_RETURN_IF_ERROR(context_->Use());
  absl::MutexLock lock(&copying_);
  if (direction != CopyDirection::kWithin && WorthStaging(parts)) {
    return direction == CopyDirection::kToHost ? staging_->ToHost(parts)
                                               : staging_->ToDevice(parts);
  }
  for (const CopyPart& part : parts) {
    ANABRANCH_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(part.to, part.from, part.bytes, KindOf(direction), copies_), "copy"));
  }
  return CudaStatus(cudaStreamSynchronize(copies_), "copy");
}

absl::Status CudaDevice::Fill(absl::Span<const absl::Span<uint8_t>> blocks, int byte) {
  ANABRANCH_RETURN_IF_ERROR(context_->Use());
  absl::MutexLock lock(&copying_);
  for (const absl::Span<uint8_t>& block : blocks) {
    ANABRANCH_RETURN_IF_ERROR(
        CudaStatus(cudaMemsetAsync(block.data(), byte, block.size(), copies_), "fill"));
  }
  return CudaStatus(cudaStreamSynchronize(copies_), "fill");
}

// The first run sizes scratch and chooses algorithms, which cannot be recorded.
absl::Status CudaDevice::Replay(int64_t key, absl::FunctionRef<absl::Status()> work) {
  ANABRANCH_RETURN_IF_ERROR(context_->Use());
  Recorded& recorded = recorded_[key];
  if (recorded.graph != nullptr && recorded.scratch_generation != context_->scratch_generation()) {
    cudaGraphExecDestroy(std::exchange(recorded.graph, nullptr));
  }
  if (recorded.runs++ == 0) return work();
  if (recorded.graph == nullptr) ANABRANCH_RETURN_IF_ERROR(Record(recorded, work));
  return CudaStatus(cudaGraphLaunch(recorded.graph, context_->stream()), "replay");
}

absl::Status CudaDevice::Record(Recorded& recorded, absl::FunctionRef<absl::Status()> work) {
  const cudaStream_t stream = context_->stream();
  ANABRANCH_RETURN_IF_ERROR(
      CudaStatus(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "record"));
  const absl::Status worked = work();
  cudaGraph_t graph = nullptr;
  const absl::Status ended = CudaStatus(cudaStreamEndCapture(stream, &graph), "record");
  absl::Status status = worked.ok() ? ended : worked;
  if (status.ok()) {
    status = CudaStatus(cudaGraphInstantiate(&recorded.graph, graph, 0), "record");
  }
  if (graph != nullptr) cudaGraphDestroy(graph);
  recorded.scratch_generation = context_->scratch_generation();
  return status;
}

void CudaDevice::ForgetReplays() {
  for (auto& [key, recorded] : recorded_) {
    if (recorded.graph != nullptr) cudaGraphExecDestroy(recorded.graph);
  }
  recorded_.clear();
}

}  // namespace

absl::StatusOr<std::shared_ptr<Device>> OpenCudaDevice(int ordinal) {
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<CudaContext> context, CudaContext::Create(ordinal));
  cudaStream_t copies = nullptr;
  ANABRANCH_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking), "stream"));
  ANABRANCH_ASSIGN_OR_RETURN(std::unique_ptr<CudaStaging> staging, CudaStaging::Create(copies));
  return std::make_shared<CudaDevice>(std::move(context), copies, std::move(staging));
}

}  // namespace anabranch
