#include "runtime/weights.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/elementwise.h"
#include "runtime/float_convert.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

namespace {

size_t ElementBytes(kernels::DType dtype) {
  return dtype == kernels::DType::kFloat32 ? sizeof(float) : sizeof(uint16_t);
}

}  // namespace

absl::Status Linear::Run(int64_t rows, const float* x, int64_t x_stride, float* y, int64_t y_stride,
                         const kernels::Launch& launch) const {
  kernels::GemmParams params;
  params.m = rows;
  params.x = x;
  params.x_stride = x_stride;
  params.w = weight_;
  params.bias = bias_.floats();
  params.y = y;
  params.y_stride = y_stride;
  params.round_to_bf16 = weight_.dtype == kernels::DType::kBFloat16;
  ANABRANCH_RETURN_IF_ERROR(kernels::Gemm(params, launch));
  if (scale_.size() == 0) return absl::OkStatus();
  kernels::ScaleParams scale;
  scale.rows = rows;
  scale.width = out_features();
  scale.x = scale.y = y;
  scale.x_stride = scale.y_stride = y_stride;
  scale.columns = scale_.floats();
  scale.round_to_bf16 = params.round_to_bf16;
  return kernels::Scale(scale, launch);
}

absl::Status Linear::ScaleSections(absl::Span<const std::pair<int64_t, float>> sections) {
  if (std::all_of(sections.begin(), sections.end(), [](auto s) { return s.second == 1; })) {
    return absl::OkStatus();
  }
  ANABRANCH_ASSIGN_OR_RETURN(scale_, Buffer::Allocate(out_features() * sizeof(float)));
  float* at = scale_.floats();
  for (const auto& [width, factor] : sections) at = std::fill_n(at, width, factor);
  if (at != scale_.floats() + out_features()) {
    return absl::InternalError("sections do not cover the outputs of a linear layer");
  }
  return absl::OkStatus();
}

// What CheckTensors has seen; `rank` dimensions if that is not 0.
absl::StatusOr<const TensorView*> WeightReader::Checked(const std::string& name, size_t rank) {
  const TensorView* tensor = file_.Find(name);
  if (tensor == nullptr || (rank != 0 && tensor->shape.size() != rank)) {
    return absl::InternalError(absl::StrCat("tensor '", name, "' unchecked"));
  }
  return tensor;
}

absl::StatusOr<Buffer> WeightReader::Keep(size_t bytes) {
  bytes_ += bytes;
  return Buffer::Allocate(bytes);
}

absl::Status WeightReader::Convert(const std::string& name, float* out) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name));
  ANABRANCH_RETURN_IF_ERROR(ToFloats(*tensor, out));
  if (dtype_ == kernels::DType::kBFloat16) RoundToBFloat16(out, tensor->num_elements());
  if (!AllFinite(out, tensor->num_elements())) {
    return absl::DataLossError(absl::StrCat("tensor '", name, "' has NaN or infinite values"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Buffer> WeightReader::ReadFloats(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name));
  ANABRANCH_ASSIGN_OR_RETURN(Buffer values, Keep(tensor->num_elements() * sizeof(float)));
  ANABRANCH_RETURN_IF_ERROR(Convert(name, values.floats()));
  return values;
}

absl::StatusOr<Buffer> WeightReader::ReadConvolution(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer rows, ReadFloats(name));
  const std::vector<int64_t>& shape = file_.Find(name)->shape;
  const int64_t channels = shape[0], width = shape[2];
  ANABRANCH_ASSIGN_OR_RETURN(Buffer columns, Buffer::Allocate(rows.size()));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t j = 0; j < width; ++j) {
      columns.floats()[j * channels + c] = rows.floats()[c * width + j];
    }
  }
  return columns;
}

absl::StatusOr<Buffer> WeightReader::ReadTable(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name));
  if (dtype_ == kernels::DType::kFloat32) return ReadFloats(name);
  const int64_t count = tensor->num_elements();
  ANABRANCH_ASSIGN_OR_RETURN(Buffer floats, Buffer::Allocate(count * sizeof(float)));
  ANABRANCH_RETURN_IF_ERROR(Convert(name, floats.floats()));
  ANABRANCH_ASSIGN_OR_RETURN(Buffer table, Keep(count * sizeof(uint16_t)));
  ToBFloat16(floats.floats(), count, static_cast<uint16_t*>(table.data()));
  return table;
}

absl::StatusOr<Buffer> WeightReader::ReadRows(const std::string& name) {
  const size_t kept = bytes_;
  auto rows = ReadTable(name);
  bytes_ = kept;
  return rows;
}

absl::StatusOr<Linear> WeightReader::Pack(const void* matrix, int64_t rows, int64_t columns) {
  Linear linear;
  ANABRANCH_ASSIGN_OR_RETURN(linear.packed_, Keep(kernels::PackedBytes(dtype_, rows, columns)));
  kernels::PackMatrix(dtype_, matrix, rows, columns, linear.packed_.data());
  linear.weight_ = {linear.packed_.data(), dtype_, rows, columns};
  return linear;
}

absl::StatusOr<Linear> WeightReader::ReadLinear(absl::Span<const std::string> names, bool bias) {
  const std::string key = absl::StrJoin(names, " ");
  if (const auto found = linears_.find(key); found != linears_.end()) return found->second;
  int64_t rows = 0, columns = 0;
  for (const std::string& name : names) {
    ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name + ".weight", 2));
    rows += tensor->shape[0];
    columns = tensor->shape[1];
  }
  const size_t row_bytes = columns * ElementBytes(dtype_);
  ANABRANCH_ASSIGN_OR_RETURN(Buffer stacked, Buffer::Allocate(rows * row_bytes));
  Buffer biases;
  if (bias) {
    ANABRANCH_ASSIGN_OR_RETURN(biases, Keep(rows * sizeof(float)));
  }
  int64_t row = 0;
  for (const std::string& name : names) {
    ANABRANCH_ASSIGN_OR_RETURN(const Buffer part, ReadRows(name + ".weight"));
    std::memcpy(static_cast<char*>(stacked.data()) + row * row_bytes, part.data(), part.size());
    if (bias) {
      ANABRANCH_RETURN_IF_ERROR(Convert(name + ".bias", biases.floats() + row));
    }
    row += file_.Find(name + ".weight")->shape[0];
  }
  ANABRANCH_ASSIGN_OR_RETURN(Linear linear, Pack(stacked.data(), rows, columns));
  linear.bias_ = std::move(biases);
  linears_.emplace(key, linear);
  return linear;
}

absl::StatusOr<Linear> WeightReader::ReadAlternating(const std::string& name, bool bias) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name + ".weight", 2));
  const int64_t rows = tensor->shape[0], columns = tensor->shape[1];
  const size_t row_bytes = columns * ElementBytes(dtype_);
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer stored, ReadRows(name + ".weight"));
  ANABRANCH_ASSIGN_OR_RETURN(Buffer halves, Buffer::Allocate(stored.size()));
  const auto half_row = [&](int64_t row) { return row % 2 * (rows / 2) + row / 2; };
  for (int64_t row = 0; row < rows; ++row) {
    std::memcpy(static_cast<char*>(halves.data()) + half_row(row) * row_bytes,
                static_cast<const char*>(stored.data()) + row * row_bytes, row_bytes);
  }
  ANABRANCH_ASSIGN_OR_RETURN(Linear linear, Pack(halves.data(), rows, columns));
  if (!bias) return linear;
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer stored_bias, ReadFloats(name + ".bias"));
  ANABRANCH_ASSIGN_OR_RETURN(linear.bias_, Buffer::Allocate(stored_bias.size()));
  for (int64_t row = 0; row < rows; ++row) {
    linear.bias_.floats()[half_row(row)] = stored_bias.floats()[row];
  }
  return linear;
}

absl::StatusOr<std::vector<Linear>> WeightReader::ReadLinears(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name, 3));
  const int64_t rows = tensor->shape[1], columns = tensor->shape[2];
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer stored, ReadRows(name));
  std::vector<Linear> layers;
  for (int64_t i = 0; i < tensor->shape[0]; ++i) {
    const char* matrix =
        static_cast<const char*>(stored.data()) + i * rows * columns * ElementBytes(dtype_);
    ANABRANCH_ASSIGN_OR_RETURN(Linear layer, Pack(matrix, rows, columns));
    layers.push_back(std::move(layer));
  }
  return layers;
}

}  // namespace anabranch
