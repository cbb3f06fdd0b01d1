// y[m, n] = sum_k x[m, k] * W[n, k] (+ bias[n]), the linear layer of every model.
//
// Row-invariant: each output element is one chain of fused multiply-adds over ascending k in
// float32, whatever the number of rows. Library GEMMs choose other summation orders for other row
// counts, which would make a restored state differ from the uninterrupted one in the last bits.
//
// Weights are packed once at load: panels of kPanelColumns output columns, k-major inside a panel,
// zero-padded in n. bfloat16 weights stay 16 bits wide and are widened exactly as they are used.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "kernels/launch.h"

namespace anabranch::kernels {

inline constexpr int64_t kPanelColumns = 32;

// On CUDA the matrix lies in device memory as it is stored, row-major [n, k].
struct PackedMatrix {
  const void* data = nullptr;  // PackedBytes() bytes, 64-byte aligned
  DType dtype = DType::kFloat32;
  int64_t n = 0;  // output columns
  int64_t k = 0;  // input columns
};

// Bytes of the packed form of an [n, k] matrix.
size_t PackedBytes(DType dtype, int64_t n, int64_t k);

// Packs row-major w [n, k] (elements of `dtype`) into `packed` (PackedBytes() bytes).
void PackMatrix(DType dtype, const void* w, int64_t n, int64_t k, void* packed);

struct GemmParams {
  int64_t m = 0;
  ConstActs x;           // [m, k]
  int64_t x_stride = 0;  // elements between rows of x
  PackedMatrix w;
  const float* bias = nullptr;  // [n] or null
  Acts y;                       // [m, n], fully overwritten
  int64_t y_stride = 0;
  bool accumulate = false;     // y += the result instead. Only on CUDA, and only into float32
  bool round_to_bf16 = false;  // round each output to the nearest bfloat16 (kept as float32)
};

absl::Status Gemm(const GemmParams& params, const Launch& launch);

}  // namespace anabranch::kernels
