// The CUDA runtime and the context that kernels get, as far as emulated kernels and their tests ask
// for them: device memory is memory, and whatever is queued has happened.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "kernels/cuda/context.h"
#include "kernels/cuda/gemm_plans.h"
#include "tests/emulation/emulator.h"

namespace {

constexpr int kSharedMemory = 227 * 1024, kMultiprocessors = 132;  // as an H200

// By kernel: bytes of dynamic shared memory that were asked for.
std::map<const void*, size_t>& Allowed() {
  static auto* const allowed = new std::map<const void*, size_t>;
  return *allowed;
}
cudaError_t last_error = cudaSuccess;

size_t Rounded(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** to, size_t bytes) {
  *to = std::aligned_alloc(256, Rounded(bytes));
  if (*to == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*to, 0xff, bytes);  // NaN
  return cudaSuccess;
}
cudaError_t cudaFree(void* block) {
  std::free(block);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int byte, size_t bytes, cudaStream_t) {
  std::memset(to, byte, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* left, size_t* total) {
  *left = *total = size_t{1} << 30;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMaxSharedMemoryPerBlockOptin ? kSharedMemory : 0;
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    Allowed()[kernel] = static_cast<size_t>(value);
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

}  // extern "C"

cudaError_t anabranch::emulation::CheckStart(const void* kernel, size_t shared) {
  constexpr size_t kAlwaysAllowed = 48 * 1024;
  const auto asked = Allowed().find(kernel);
  const size_t allowed = asked == Allowed().end() ? kAlwaysAllowed : asked->second;
  return shared <= allowed ? cudaSuccess : last_error = cudaErrorInvalidValue;
}

namespace anabranch::kernels {

// cuBLASLt is not there: all products are the kernels' own.
absl::StatusOr<bool> GemmPlans::Multiply(const LtProduct&, CudaContext&) { return false; }

absl::Status CudaStatus(cudaError_t error, const char* what) {
  return error == cudaSuccess ? absl::OkStatus() : absl::InternalError(what);
}

CudaContext::CudaContext() : gemm_plans_(std::make_unique<GemmPlans>()) {}
CudaContext::~CudaContext() { std::free(scratch_); }

absl::StatusOr<std::unique_ptr<CudaContext>> CudaContext::Create(int) {
  std::unique_ptr<CudaContext> context(new CudaContext);
  context->multiprocessors_ = kMultiprocessors;
  return context;
}

absl::Status CudaContext::Order(cudaStream_t, cudaStream_t) { return absl::OkStatus(); }
absl::Status CudaContext::Use() const { return absl::OkStatus(); }

absl::StatusOr<void*> CudaContext::Scratch(size_t bytes) {
  if (bytes > scratch_bytes_) {
    std::free(scratch_);
    scratch_ = std::aligned_alloc(256, Rounded(bytes));
    scratch_bytes_ = bytes;
    ++scratch_generation_;
  }
  return scratch_;
}

}  // namespace anabranch::kernels
