#include "runtime/cuda_device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/context.h"
#include "kernels/cuda/cuda_kernels.h"
#include "runtime/cuda_copies.h"
#include "runtime/cuda_state_coder.h"
#include "runtime/tensor_memory.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using kernels::CudaContext;
using kernels::CudaStatus;

// A recorded step. The scratch that it used may have moved since.
struct Recorded {
  int64_t runs = 0;
  cudaGraphExec_t graph = nullptr;
  uint64_t scratch_generation = 0;
};

class CudaMark final : public DeviceMark {
 public:
  explicit CudaMark(const CudaContext* context) : context_(context) {}
  ~CudaMark() override {
    if (event_ != nullptr) cudaEventDestroy(event_);
  }
  absl::Status Record() {
    // Who waits sleeps: a thread that spins would take a processor from those that queue work.
    constexpr unsigned kFlags = cudaEventDisableTiming | cudaEventBlockingSync;
    ANABRANCH_RETURN_IF_ERROR(CudaStatus(cudaEventCreateWithFlags(&event_, kFlags), "mark"));
    return CudaStatus(cudaEventRecord(event_, context_->stream()), "mark");
  }
  absl::Status Wait() override {
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    return CudaStatus(cudaEventSynchronize(event_), "step");
  }
  bool reached() override { return cudaEventQuery(event_) == cudaSuccess; }

 private:
  const CudaContext* const context_;  // outlives this
  cudaEvent_t event_ = nullptr;
};

class CudaDevice final : public Device {
 public:
  // Copies have streams of their own, so that a thread that captures or restores a state does not
  // wait for a step. Sequences that are copied are not in a step: the engine sees to that.
  struct Lanes {
    // What steps need, which is small; copies within the device; and, each way, states.
    std::unique_ptr<CudaCopies> steps, within, beside_to_host, beside_to_device;
  };

  CudaDevice(std::unique_ptr<CudaContext> context, Lanes lanes)
      : context_(std::move(context)),
        lanes_(std::move(lanes)),
        coder_(std::make_unique<CudaStateCoder>(this, context_.get(), lanes_.beside_to_host.get(),
                                                lanes_.beside_to_device.get())) {}
  ~CudaDevice() override {
    (void)context_->Use();
    ForgetReplays();
    coder_.reset();
    lanes_ = Lanes();
  }

  const char* kind() const override { return "cuda"; }
  bool in_host_memory() const override { return false; }
  kernels::DType activations(kernels::DType compute) const override { return compute; }
  const kernels::KernelSet& kernels() const override { return kernels::cuda::Kernels(); }
  kernels::Launch launch() const override { return {.cuda = context_.get()}; }
  absl::StatusOr<MemoryBudget> AvailableMemory() const override;

  absl::StatusOr<Buffer> Allocate(size_t bytes) override;
  absl::StatusOr<Buffer> AllocateHost(size_t bytes) override;
  absl::Status Queue(CopyDirection direction, const CopyPart& part) override {
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    const bool to_host = direction == CopyDirection::kToHost;
    const cudaMemcpyKind kind = to_host                                 ? cudaMemcpyDeviceToHost
                                : direction == CopyDirection::kToDevice ? cudaMemcpyHostToDevice
                                                                        : cudaMemcpyDeviceToDevice;
    return CudaStatus(cudaMemcpyAsync(part.to, part.from, part.bytes, kind, context_->stream()),
                      "copy");
  }
  absl::Status Copy(CopyDirection direction, absl::Span<const CopyPart> parts) override {
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    const bool within = direction == CopyDirection::kWithin;
    return (within ? lanes_.within : lanes_.steps)->Copy(direction, parts);
  }
  absl::Status CopyBeside(CopyDirection direction, absl::Span<const CopyPart> parts) override {
    if (direction == CopyDirection::kWithin) return Copy(direction, parts);
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    const bool to_host = direction == CopyDirection::kToHost;
    return (to_host ? lanes_.beside_to_host : lanes_.beside_to_device)->Copy(direction, parts);
  }
  StateCoder* coder() override { return coder_.get(); }
  absl::Status Fill(absl::Span<const absl::Span<uint8_t>> blocks, int byte) override {
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    return lanes_.within->Fill(blocks, byte);
  }

  absl::StatusOr<std::shared_ptr<DeviceMark>> Mark() override {
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    auto mark = std::make_shared<CudaMark>(context_.get());
    ANABRANCH_RETURN_IF_ERROR(mark->Record());
    return mark;
  }
  absl::Status Replay(int64_t key, absl::FunctionRef<absl::Status()> work) override;
  void ForgetReplays() override;
  absl::Status Wait() override {
    ANABRANCH_RETURN_IF_ERROR(context_->Use());
    return CudaStatus(cudaStreamSynchronize(context_->stream()), "step");
  }
  // After a fault in a kernel or of the hardware every call fails, whatever it asks.
  absl::Status Health() override {
    (void)context_->Use();
    const cudaError_t error = cudaStreamQuery(context_->stream());
    if (error == cudaSuccess || error == cudaErrorNotReady) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(
        "the GPU is lost to this process, which has to start anew: ", cudaGetErrorName(error), ", ",
        cudaGetErrorString(error)));
  }

 private:
  absl::Status Record(Recorded& recorded, absl::FunctionRef<absl::Status()> work);

  const std::unique_ptr<CudaContext> context_;
  Lanes lanes_;
  std::unique_ptr<CudaStateCoder> coder_;
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
  CudaDevice::Lanes lanes;
  for (auto* lane : {&lanes.steps, &lanes.within, &lanes.beside_to_host, &lanes.beside_to_device}) {
    ANABRANCH_ASSIGN_OR_RETURN(*lane, CudaCopies::Create());
  }
  return std::make_shared<CudaDevice>(std::move(context), std::move(lanes));
}

}  // namespace anabranch
