#include "kernels/cuda/context.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/gemm_plans.h"

namespace anabranch::kernels {

absl::Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message =
      absl::StrCat("CUDA, ", what, ": ", cudaGetErrorName(error), ", ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky: later calls would report it again
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

CudaContext::CudaContext() : gemm_plans_(std::make_unique<GemmPlans>()) {}

absl::StatusOr<std::unique_ptr<CudaContext>> CudaContext::Create(int ordinal) {
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  if (found != cudaSuccess || ordinal < 0 || ordinal >= devices) {
    cudaGetLastError();
    return absl::UnavailableError(absl::StrCat("CUDA device ", ordinal, " is not there: ",
                                               found != cudaSuccess
                                                   ? std::string(cudaGetErrorString(found))
                                                   : absl::StrCat(devices, " devices were found")));
  }
  std::unique_ptr<CudaContext> context(new CudaContext);
  context->ordinal_ = ordinal;
  if (absl::Status s = context->Use(); !s.ok()) return s;
  const auto check = [](cudaError_t error, const char* what) { return CudaStatus(error, what); };
  absl::Status s = check(
      cudaDeviceGetAttribute(&context->multiprocessors_, cudaDevAttrMultiProcessorCount, ordinal),
      "reading the device");
  int major = 0;
  if (s.ok()) {
    s = check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal),
              "reading the device");
  }
  context->starts_early_ = major >= 9;
  int lowest = 0, highest = 0;
  if (s.ok()) s = check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "stream");
  if (s.ok()) {
    const int above = std::max(lowest - 1, highest);
    s = check(cudaStreamCreateWithPriority(&context->stream_, cudaStreamNonBlocking, above),
              "stream");
  }
  if (s.ok()) {
    s = check(cudaStreamCreateWithPriority(&context->beside_, cudaStreamNonBlocking, lowest),
              "stream");
  }
  if (s.ok()) {
    s = check(cudaEventCreateWithFlags(&context->order_, cudaEventDisableTiming), "event");
  }
  if (s.ok()) s = check(cudaMalloc(&context->gemm_workspace_, kGemmWorkspace), "workspace");
  if (!s.ok()) return s;
  const absl::StatusOr<const CublasLt*> library = LoadCublasLt();
  if (!library.ok()) return library.status();
  context->cublas_lt_ = *library;
  if (context->cublas_lt_->Create(&context->cublas_) != CUBLAS_STATUS_SUCCESS) {
    return absl::InternalError("cuBLASLt cannot be initialised");
  }
  return context;
}

CudaContext::~CudaContext() {
  (void)Use();
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  cudaFree(scratch_);
  cudaFree(gemm_workspace_);
  if (cublas_ != nullptr) cublas_lt_->Destroy(cublas_);
  if (order_ != nullptr) cudaEventDestroy(order_);
  for (cudaStream_t stream : {stream_, beside_}) {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
}

absl::Status CudaContext::Order(cudaStream_t earlier, cudaStream_t later) {
  // A wait is for what the event stands for now, so one event serves again and again.
  absl::Status s = CudaStatus(cudaEventRecord(order_, earlier), "order");
  if (!s.ok()) return s;
  return CudaStatus(cudaStreamWaitEvent(later, order_, 0), "order");
}

absl::Status CudaContext::Use() const { return CudaStatus(cudaSetDevice(ordinal_), "device"); }

absl::StatusOr<void*> CudaContext::Scratch(size_t bytes) {
  if (bytes <= scratch_bytes_) return scratch_;
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  absl::Status s = CudaStatus(cudaStreamIsCapturing(stream_, &capturing), "scratch");
  if (!s.ok()) return s;
  if (capturing != cudaStreamCaptureStatusNone) {
    return absl::FailedPreconditionError("scratch cannot grow while a graph is captured");
  }
  s = CudaStatus(cudaStreamSynchronize(stream_), "scratch");
  if (!s.ok()) return s;
  cudaFree(scratch_);
  scratch_ = nullptr;
  scratch_bytes_ = 0;
  ++scratch_generation_;
  const size_t rounded = std::max(bytes + bytes / 4, size_t{1} << 20);
  s = CudaStatus(cudaMalloc(&scratch_, rounded), "scratch");
  if (!s.ok()) return s;
  scratch_bytes_ = rounded;
  return scratch_;
}

}  // namespace anabranch::kernels
