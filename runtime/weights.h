// From tensors in files to what kernels use: packed matrices for linear layers, float32 arrays for
// everything small. A bfloat16 model rounds matrices and the embedding to bfloat16; small tensors
// stay as they are in the file, because they cost nothing and their rounding is the easiest to see
// in logits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/gemm.h"
#include "runtime/device.h"
#include "runtime/load_progress.h"
#include "runtime/model.h"
#include "runtime/model_description.h"
#include "runtime/step_context.h"
#include "runtime/tensor_file.h"
#include "runtime/tensor_memory.h"
#include "runtime/weight_packing.h"

namespace anabranch {

// A tensor that a model needs, and its only accepted shape.
struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};

// All tensors of a described model.
std::vector<ExpectedTensor> ExpectedTensors(const ModelDescription& model);

// Compares a folder's tensors with a description before anything is allocated, and settles what
// depends on the file: other names of tensors, and tying where there is no head.
// INVALID_ARGUMENT names the first missing, misshapen or superfluous tensor, the shape found and
// the one expected.
absl::Status CheckTensors(TensorFile& file, ModelDescription& model);

class WeightReader;

// y = W x + b with a packed W.
class Linear {
 public:
  // Later Runs multiply the outputs by factors: `sections` are (width, factor) from the first
  // output to the last.
  absl::Status ScaleSections(absl::Span<const std::pair<int64_t, float>> sections,
                             WeightReader& weights);
  // `add`: as GemmParams::accumulate; not with scaled sections.
  absl::Status Run(int64_t rows, kernels::ConstActs x, int64_t x_stride, kernels::Acts y,
                   int64_t y_stride, const StepContext& step, bool add = false) const;
  // y = W norm(x) + b, and then the convolution of some of its outputs, unless that is null, with
  // kernels/linear_step.h; norm.y is room for what is normed.
  absl::Status RunStep(const kernels::GatedRmsNormParams& norm,
                       const kernels::CausalConv1dParams* conv, kernels::Acts y, int64_t y_stride,
                       const StepContext& step, bool add = false) const;
  const kernels::PackedMatrix& matrix() const { return weight_; }
  int64_t in_features() const { return weight_.k; }
  int64_t out_features() const { return weight_.n; }

 private:
  friend class WeightReader;
  kernels::GemmParams ProductOf(int64_t rows, kernels::ConstActs x, int64_t x_stride,
                                kernels::Acts y, int64_t y_stride, bool add) const;
  absl::Status Scale(int64_t rows, kernels::Acts y, int64_t y_stride,
                     const StepContext& step) const;

  Buffer packed_, bias_, scale_;  // scale_ is empty if all factors are 1
  kernels::PackedMatrix weight_;
};

// Rows for lookups, row-major. Elements that can be used as they are in the file stay in its
// mapping, which all processes on a machine share; others are a copy of the compute dtype.
class Table {
 public:
  const void* data() const { return data_; }
  kernels::DType dtype() const { return dtype_; }

 private:
  friend class WeightReader;
  const void* data_ = nullptr;
  kernels::DType dtype_ = kernels::DType::kFloat32;
  Buffer copy_;  // empty if the file's bytes are used
};

// The bytes that the weights will take in memory as `dtype`, about; what stays mapped is not
// counted.
uint64_t EstimateWeightBytes(const TensorFile& file, kernels::DType dtype,
                             const ModelDescription& model);

// Reads tensors that CheckTensors accepted, and places them where the model runs. DATA_LOSS names a
// tensor with NaN or infinite values.
class WeightReader {
 public:
  // Results lie on `device`. `progress` is called now and then; may be null. The file outlives what
  // is read.
  WeightReader(const TensorFile& file, const LoadOptions& options, std::shared_ptr<Device> device);

  // `names` without ".weight": several matrices of the same width are stacked, one below the other.
  // What was read before is shared with the earlier result.
  absl::StatusOr<Linear> ReadLinear(absl::Span<const std::string> names, bool bias);
  // The same for one matrix whose rows alternate between two halves: puts the halves one after the
  // other.
  absl::StatusOr<Linear> ReadAlternating(const std::string& name, bool bias);
  // A tensor [n, rows, columns] as n layers.
  absl::StatusOr<std::vector<Linear>> ReadLinears(const std::string& name);
  // The values as float32, as they are in the file.
  absl::StatusOr<Buffer> ReadFloats(const std::string& name);
  absl::StatusOr<Buffer> ReadHostFloats(const std::string& name);  // the same in host memory
  // What lies in host memory, on the device: itself where that is the same.
  absl::StatusOr<Buffer> Place(const Buffer& host);
  // [channels, 1, width] -> [width, channels].
  absl::StatusOr<Buffer> ReadConvolution(const std::string& name);
  absl::StatusOr<Table> ReadTable(const std::string& name);

  kernels::DType dtype() const { return dtype_; }
  // What recurrent tensors are kept in between launches.
  kernels::DType state_dtype() const { return state_dtype_; }
  // What activations are kept in.
  kernels::DType activations() const { return device_->activations(dtype_); }
  const Device& device() const { return *device_; }
  // How many tokens may be pending beside a recurrent tensor.
  int32_t pending_room() const { return pending_room_; }
  size_t bytes_read() const { return bytes_; }  // of all results so far, without mapped ones

 private:
  absl::StatusOr<const TensorView*> Checked(const std::string& name, size_t rank = 0);
  absl::Status Convert(const std::string& name, float* out);
  absl::StatusOr<Buffer> Keep(size_t bytes);
  void Report(int64_t bytes);
  // Stored elements to the device without a copy in between; they have the compute dtype.
  absl::StatusOr<Buffer> PlaceStored(absl::Span<const StoredRows> parts);
  // The rows of all parts in one layer without bias.
  absl::StatusOr<Linear> Pack(absl::Span<const StoredRows> parts, int64_t columns);

  const TensorFile& file_;
  const kernels::DType dtype_, state_dtype_;
  const int32_t pending_room_;
  const std::shared_ptr<Device> device_;
  const LoadProgressFn progress_;
  size_t bytes_ = 0;
  absl::flat_hash_map<std::string, Linear> linears_;  // by names, for layers that share them
  LoadProgress done_;                                 // of the files
  int64_t reported_ = 0;                              // bytes
};

}  // namespace anabranch
