// From tensors in files to what kernels use: packed matrices for linear layers, float32 arrays for
// everything small. In bfloat16 models every value is rounded to bfloat16 first, as the reference
// does when it loads a model.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/gemm.h"
#include "runtime/model_description.h"
#include "runtime/tensor_file.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

// A tensor that a model needs, and its only accepted shape.
struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

// Compares a folder's tensors with a description before anything is allocated, and settles what
// depends on the file: other names of tensors, and tying where there is no head.
// INVALID_ARGUMENT names the first missing, misshapen or superfluous tensor, the shape found and
// the one expected.
absl::Status CheckTensors(TensorFile& file, ModelDescription& model);

// y = W x + b with a packed W.
class Linear {
 public:
  // Later Runs multiply the outputs by factors: `sections` are (width, factor) from the first
  // output to the last.
  absl::Status ScaleSections(absl::Span<const std::pair<int64_t, float>> sections);
  absl::Status Run(int64_t rows, const float* x, int64_t x_stride, float* y, int64_t y_stride,
                   const kernels::Launch& launch) const;
  int64_t in_features() const { return weight_.k; }
  int64_t out_features() const { return weight_.n; }

 private:
  friend class WeightReader;
  Buffer packed_, bias_, scale_;  // scale_ is empty if all factors are 1
  kernels::PackedMatrix weight_;
};

// Reads tensors that CheckTensors accepted. DATA_LOSS names a tensor with NaN or infinite values.
class WeightReader {
 public:
  WeightReader(const TensorFile& file, kernels::DType dtype) : file_(file), dtype_(dtype) {}

  // `names` without ".weight": several matrices of the same width are stacked, one below the other.
  // What was read before is shared with the earlier result.
  absl::StatusOr<Linear> ReadLinear(absl::Span<const std::string> names, bool bias);
  // The same for one matrix whose rows alternate between two halves: puts the halves one after the
  // other.
  absl::StatusOr<Linear> ReadAlternating(const std::string& name, bool bias);
  // A tensor [n, rows, columns] as n layers.
  absl::StatusOr<std::vector<Linear>> ReadLinears(const std::string& name);
  // The values as float32.
  absl::StatusOr<Buffer> ReadFloats(const std::string& name);
  // [channels, 1, width] -> [width, channels].
  absl::StatusOr<Buffer> ReadConvolution(const std::string& name);
  // Row-major, elements of the compute dtype, for lookups.
  absl::StatusOr<Buffer> ReadTable(const std::string& name);

  kernels::DType dtype() const { return dtype_; }
  size_t bytes_read() const { return bytes_; }  // of all results so far

 private:
  absl::StatusOr<const TensorView*> Checked(const std::string& name, size_t rank = 0);
  absl::Status Convert(const std::string& name, float* out);
  absl::StatusOr<Buffer> Keep(size_t bytes);
  // Row-major, as ReadTable, but not counted: dropped after packing.
  absl::StatusOr<Buffer> ReadRows(const std::string& name);
  absl::StatusOr<Linear> Pack(const void* matrix, int64_t rows, int64_t columns);

  const TensorFile& file_;
  kernels::DType dtype_;
  size_t bytes_ = 0;
  absl::flat_hash_map<std::string, Linear> linears_;  // by names, for layers that share them
};

}  // namespace anabranch
