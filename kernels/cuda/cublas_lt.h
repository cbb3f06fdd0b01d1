// cuBLASLt by its functions, loaded at run time: half a gigabyte that a binary needs only where it
// runs a model on a GPU.
#pragma once

#include <cublasLt.h>

#include "absl/status/statusor.h"

namespace anabranch::kernels {

// What this project calls, by cuBLASLt's own names without the prefix.
struct CublasLt {
  decltype(&cublasLtCreate) Create;
  decltype(&cublasLtDestroy) Destroy;
  decltype(&cublasLtMatmul) Matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) MatmulAlgoGetHeuristic;
  decltype(&cublasLtMatmulDescCreate) MatmulDescCreate;
  decltype(&cublasLtMatmulDescDestroy) MatmulDescDestroy;
  decltype(&cublasLtMatmulDescSetAttribute) MatmulDescSetAttribute;
  decltype(&cublasLtMatrixLayoutCreate) MatrixLayoutCreate;
  decltype(&cublasLtMatrixLayoutDestroy) MatrixLayoutDestroy;
  decltype(&cublasLtMatmulPreferenceCreate) MatmulPreferenceCreate;
  decltype(&cublasLtMatmulPreferenceDestroy) MatmulPreferenceDestroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) MatmulPreferenceSetAttribute;
};

// Loads the library at the first call and keeps it for the life of the process. Looked for, in this
// order: the file that ANABRANCH_CUBLASLT names, and then nowhere else; the loader's own path;
// lib/ beside the program's folder; the CUDA toolkit's folders; pip's packages. UNAVAILABLE says
// what was tried. From any thread.
absl::StatusOr<const CublasLt*> LoadCublasLt();

}  // namespace anabranch::kernels
