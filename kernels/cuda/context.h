// What CUDA kernels need besides their parameters: a stream, a cuBLASLt handle and scratch memory.
// One context per engine; one thread at a time uses it. All work of a context is in the order of
// its stream, which is why one block of scratch serves every launch. A launch of several kernels
// may run some of them beside the others on a second stream, and joins it again before it ends.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/cublas_lt.h"

namespace anabranch::kernels {

// A CUDA error as a status that names `what`: RESOURCE_EXHAUSTED for memory, otherwise INTERNAL.
absl::Status CudaStatus(cudaError_t error, const char* what);
// Of the last launch.
inline absl::Status LaunchStatus(const char* what) { return CudaStatus(cudaGetLastError(), what); }

class GemmPlans;  // kernels/cuda/gemm_plans.h

class CudaContext {
 public:
  // Uses device `ordinal`, on which all later calls run. UNAVAILABLE without such a device or
  // without cuBLASLt.
  static absl::StatusOr<std::unique_ptr<CudaContext>> Create(int ordinal);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  cudaStream_t stream() const { return stream_; }
  // The second one: what is ready on both starts on the first.
  cudaStream_t beside() const { return beside_; }
  // What is queued on `later` from now on waits for what is on `earlier` by now.
  absl::Status Order(cudaStream_t earlier, cudaStream_t later);
  const CublasLt& cublas_lt() const { return *cublas_lt_; }
  cublasLtHandle_t cublas() const { return cublas_; }
  GemmPlans& gemm_plans() { return *gemm_plans_; }
  int ordinal() const { return ordinal_; }
  int multiprocessors() const { return multiprocessors_; }
  // Whether a kernel may start before the one ahead of it has ended (start.h).
  bool starts_early() const { return starts_early_; }

  // `bytes` of device memory, 256-byte aligned, until the next call: what a kernel launches is in
  // order on the stream, so the next kernel may use the same bytes. Grows, and then waits for the
  // stream; not while a graph is captured (FAILED_PRECONDITION: run the same work once before).
  absl::StatusOr<void*> Scratch(size_t bytes);
  // Counts how often the scratch has moved: graphs recorded before are not valid any more.
  uint64_t scratch_generation() const { return scratch_generation_; }
  // For cuBLASLt alone.
  void* gemm_workspace() const { return gemm_workspace_; }
  size_t gemm_workspace_bytes() const { return kGemmWorkspace; }

  // Makes the device current for the calling thread.
  absl::Status Use() const;

 private:
  static constexpr size_t kGemmWorkspace = size_t{32} << 20;
  CudaContext();

  int ordinal_ = 0, multiprocessors_ = 0;
  bool starts_early_ = false;
  cudaStream_t stream_ = nullptr, beside_ = nullptr;
  cudaEvent_t order_ = nullptr;
  const CublasLt* cublas_lt_ = nullptr;
  cublasLtHandle_t cublas_ = nullptr;
  std::unique_ptr<GemmPlans> gemm_plans_;
  void* gemm_workspace_ = nullptr;
  void* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  uint64_t scratch_generation_ = 0;
};

}  // namespace anabranch::kernels
