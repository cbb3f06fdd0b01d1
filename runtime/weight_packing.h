// Stored matrices into the packed form of kernels/gemm.h, a block of rows at a time: a model loads
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

// The parts one below the other, each row `columns` wide, in `packed` of
// kernels::PackedBytes(dtype, rows of all, columns) bytes. `done(bytes)` is called as bytes of the
// files have been used. DATA_LOSS names a tensor with NaN or infinite values.
absl::Status PackRows(absl::Span<const StoredRows> parts, int64_t columns, kernels::DType dtype,
                      absl::FunctionRef<void(int64_t bytes)> done, void* packed);

// Converts `count` stored elements from `begin` on, rounded as `dtype` computes.
absl::Status ReadElements(absl::string_view name, const TensorView& tensor, int64_t begin,
                          int64_t count, kernels::DType dtype, float* out);

}  // namespace anabranch
