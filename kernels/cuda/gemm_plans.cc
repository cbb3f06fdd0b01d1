#include "kernels/cuda/gemm_plans.h"

#include <algorithm>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cuda/context.h"

namespace anabranch::kernels {
namespace {

absl::Status LtStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("cuBLASLt, ", what, ": status ", static_cast<int>(status)));
}

cudaDataType_t TypeOf(DType dtype) { return dtype == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF; }

// Row counts that share an algorithm, which is asked for the largest of them.
int64_t Bucket(int64_t m) {
  for (const auto& [below, step] : {std::pair<int64_t, int64_t>{16, 1}, {256, 16}, {2048, 128}}) {
    if (m <= below) return (m + step - 1) / step * step;
  }
  return (m + 1023) / 1024 * 1024;
}

// The largest power of two up to 256 that divides an address and a stride in bytes.
uint32_t Alignment(const void* data, int64_t stride, DType dtype) {
  const auto bits = reinterpret_cast<uintptr_t>(data) |
                    static_cast<uintptr_t>(stride * ElementBytes(dtype)) | uintptr_t{256};
  return static_cast<uint32_t>(bits & ~(bits - 1));
}

// Descriptors of one product in cuBLASLt's column-major view: D [n, m] = W^T [n, k] X [k, m].
class Descriptors {
 public:
  Descriptors(const CublasLt& lt, const LtProduct& p, int64_t rows) : lt_(lt) {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    Check(lt.MatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    Set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    if (p.bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      const cudaDataType_t type = TypeOf(p.out);
      Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
      Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
      Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
    }
    const auto k = static_cast<uint64_t>(p.k), n = static_cast<uint64_t>(p.n);
    const auto m = static_cast<uint64_t>(rows);
    Check(lt.MatrixLayoutCreate(&w, TypeOf(p.in), k, n, p.k));
    Check(lt.MatrixLayoutCreate(&x, TypeOf(p.in), k, m, p.x_stride));
    Check(lt.MatrixLayoutCreate(&y, TypeOf(p.out), n, m, p.y_stride));
  }
  ~Descriptors() {
    for (cublasLtMatrixLayout_t layout : {w, x, y}) {
      if (layout != nullptr) lt_.MatrixLayoutDestroy(layout);
    }
    if (product != nullptr) lt_.MatmulDescDestroy(product);
  }
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;  // the first failure
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;

 private:
  void Check(cublasStatus_t result) {
    if (status == CUBLAS_STATUS_SUCCESS) status = result;
  }
  template <typename T>
  void Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    if (status == CUBLAS_STATUS_SUCCESS) {
      Check(lt_.MatmulDescSetAttribute(product, attribute, &value, sizeof(value)));
    }
  }

  const CublasLt& lt_;
};

struct Alignments {
  uint32_t w, x, y;
};

// Nothing if there is none.
absl::StatusOr<std::optional<cublasLtMatmulAlgo_t>> Choose(const LtProduct& p, int64_t rows,
                                                           const Alignments& aligned,
                                                           CudaContext& context) {
  const CublasLt& lt = context.cublas_lt();
  const Descriptors d(lt, p, rows);
  if (absl::Status s = LtStatus(d.status, "describing a product"); !s.ok()) return s;
  cublasLtMatmulPreference_t preference = nullptr;
  if (absl::Status s = LtStatus(lt.MatmulPreferenceCreate(&preference), "preference"); !s.ok()) {
    return s;
  }
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    lt.MatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{context.gemm_workspace_bytes()});
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, aligned.w);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, aligned.x);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, aligned.y);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, aligned.y);
  cublasLtMatmulHeuristicResult_t result = {};
  int found = 0;
  const cublasStatus_t status = lt.MatmulAlgoGetHeuristic(context.cublas(), d.product, d.w, d.x,
                                                          d.y, d.y, preference, 1, &result, &found);
  lt.MatmulPreferenceDestroy(preference);
  const bool usable =
      status == CUBLAS_STATUS_SUCCESS && found > 0 && result.state == CUBLAS_STATUS_SUCCESS;
  if (!usable) return std::nullopt;
  return result.algo;
}

}  // namespace

absl::StatusOr<bool> GemmPlans::Multiply(const LtProduct& p, CudaContext& context) {
  const Alignments aligned = {Alignment(p.w, p.k, p.in), Alignment(p.x, p.x_stride, p.in),
                              Alignment(p.y, p.y_stride, p.out)};
  const int64_t rows = Bucket(p.m);
  const Key key = {rows,  p.n,       p.k,       p.x_stride, p.y_stride,   p.in,
                   p.out, aligned.w, aligned.x, aligned.y,  p.accumulate, p.bias != nullptr};
  auto at = chosen_.find(key);
  if (at == chosen_.end()) {
    absl::StatusOr<std::optional<cublasLtMatmulAlgo_t>> algorithm =
        Choose(p, rows, aligned, context);
    if (!algorithm.ok()) return algorithm.status();
    at = chosen_.emplace(key, *algorithm).first;
  }
  if (!at->second.has_value()) return false;
  const Descriptors d(context.cublas_lt(), p, p.m);
  if (absl::Status s = LtStatus(d.status, "describing a product"); !s.ok()) return s;
  const float alpha = 1, beta = p.accumulate ? 1 : 0;
  const cublasStatus_t status = context.cublas_lt().Matmul(
      context.cublas(), d.product, &alpha, p.w, d.w, p.x, d.x, &beta, p.y, d.y, p.y, d.y,
      &*at->second, context.gemm_workspace(), context.gemm_workspace_bytes(), context.stream());
  // An algorithm may refuse fewer rows than it was chosen for.
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return false;
  if (absl::Status s = LtStatus(status, "product"); !s.ok()) return s;
  return true;
}

}  // namespace anabranch::kernels
