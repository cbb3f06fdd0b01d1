// Stored matrices into the form that kernels read, a block of rows at a time: a model loads
// with little more memory than it keeps.
#pragma once

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/launch.h"
#include "runtime/safetensors.h"

namespace anabranch {

// Rows first, first + step, ... of a tensor whose last dimension is a row.
struct StoredRows {
  std::string name;  // of the tensor, for messages
  const TensorView* tensor = nullptr;
  int64_t first = 0, step = 1, count = 0;
};

// How the kernels of a device want matrices: the panels of kernels/gemm.h on the CPU, rows as they
// are stored on others.
enum class MatrixLayout : uint8_t { kPanels, kRowMajor };
size_t MatrixBytes(MatrixLayout layout, kernels::DType dtype, int64_t rows, int64_t columns);

// The parts one below the other, each row `columns` wide, in `packed` of MatrixBytes(layout, dtype,
// rows of all, columns) bytes of host memory. `done(bytes)` is called as bytes of the
// files have been used. DATA_LOSS names a tensor with NaN or infinite values.
absl::Status PackRows(absl::Span<const StoredRows> parts, int64_t columns, kernels::DType dtype,
                      MatrixLayout layout, absl::FunctionRef<void(int64_t bytes)> done,
                      void* packed);

// DATA_LOSS that names the tensor.
absl::Status NotFinite(absl::string_view name);

// Converts `count` stored elements from `begin` on, rounded as `dtype` computes.
absl::Status ReadElements(absl::string_view name, const TensorView& tensor, int64_t begin,
                          int64_t count, kernels::DType dtype, float* out);

}  // namespace anabranch
