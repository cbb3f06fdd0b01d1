#include "runtime/weights.h"

#include <algorithm>
#include <cstring>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/elementwise.h"
#include "runtime/float_convert.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr int64_t kTableBlock = 1 << 20;    // elements
constexpr int64_t kReportBytes = 16 << 20;  // between two reports of progress

// Whether looking rows up in the file's bytes gives what looking them up in a converted copy would.
bool UsableAsStored(const TensorView& tensor, kernels::DType dtype) {
  const bool aligned =
      reinterpret_cast<uintptr_t>(tensor.bytes.data()) % TensorDTypeBytes(tensor.dtype) == 0;
  return aligned && (tensor.dtype == TensorDType::kBF16 ||
                     (tensor.dtype == TensorDType::kF32 && dtype == kernels::DType::kFloat32));
}

// Whether the file's bytes are what kernels of the compute dtype read, row after row.
bool StoredAsComputed(const StoredRows& part, kernels::DType dtype) {
  const TensorDType same =
      dtype == kernels::DType::kFloat32 ? TensorDType::kF32 : TensorDType::kBF16;
  return part.step == 1 && part.tensor->dtype == same;
}

}  // namespace

kernels::GemmParams Linear::ProductOf(int64_t rows, kernels::ConstActs x, int64_t x_stride,
                                      kernels::Acts y, int64_t y_stride, bool add) const {
  kernels::GemmParams params;
  params.m = rows;
  params.x = x;
  params.x_stride = x_stride;
  params.w = weight_;
  params.bias = bias_.floats();
  params.y = y;
  params.y_stride = y_stride;
  params.accumulate = add;
  return params;
}

absl::Status Linear::Scale(int64_t rows, kernels::Acts y, int64_t y_stride,
                           const StepContext& step) const {
  kernels::ScaleParams scale;
  scale.rows = rows;
  scale.width = out_features();
  scale.x = scale.y = y;
  scale.x_stride = scale.y_stride = y_stride;
  scale.columns = scale_.floats();
  return step.kernels->scale(scale, step.launch);
}

absl::Status Linear::Run(int64_t rows, kernels::ConstActs x, int64_t x_stride, kernels::Acts y,
                         int64_t y_stride, const StepContext& step, bool add) const {
  const kernels::GemmParams params = ProductOf(rows, x, x_stride, y, y_stride, add);
  ANABRANCH_RETURN_IF_ERROR(step.kernels->gemm(params, step.launch));
  if (scale_.size() == 0) return absl::OkStatus();
  if (add) return absl::InternalError("scaled sections cannot be added");
  return Scale(rows, y, y_stride, step);
}

absl::Status Linear::RunStep(const kernels::GatedRmsNormParams& norm,
                             const kernels::CausalConv1dParams* conv, kernels::Acts y,
                             int64_t y_stride, const StepContext& step, bool add) const {
  const bool scaled = scale_.size() > 0;
  if (scaled && add) return absl::InternalError("scaled sections cannot be added");
  const int64_t rows = norm.norm.rows;
  kernels::LinearStepParams params;
  params.norm = norm;
  params.gemm = ProductOf(rows, norm.norm.y, norm.norm.y_stride, y, y_stride, add);
  if (conv != nullptr && !scaled) params.conv = *conv;
  ANABRANCH_RETURN_IF_ERROR(step.kernels->linear_step(params, step.launch));
  if (!scaled) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(Scale(rows, y, y_stride, step));
  return conv == nullptr ? absl::OkStatus() : step.kernels->causal_conv1d(*conv, step.launch);
}

absl::Status Linear::ScaleSections(absl::Span<const std::pair<int64_t, float>> sections,
                                   WeightReader& weights) {
  if (std::all_of(sections.begin(), sections.end(), [](auto s) { return s.second == 1; })) {
    return absl::OkStatus();
  }
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer scale, Buffer::Allocate(out_features() * sizeof(float)));
  float* at = scale.floats();
  for (const auto& [width, factor] : sections) at = std::fill_n(at, width, factor);
  if (at != scale.floats() + out_features()) {
    return absl::InternalError("sections do not cover the outputs of a linear layer");
  }
  ANABRANCH_ASSIGN_OR_RETURN(scale_, weights.Place(scale));
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

WeightReader::WeightReader(const TensorFile& file, const LoadOptions& options,
                           std::shared_ptr<Device> device)
    : file_(file),
      dtype_(options.dtype),
      state_dtype_(options.state_dtype),
      pending_room_(options.state_write_every - 1),
      device_(std::move(device)),
      progress_(options.progress) {
  done_.phase = "reading weights";
  for (const auto& mapped : file.files()) {
    done_.total += static_cast<int64_t>(mapped->bytes().size());
  }
}

absl::StatusOr<Buffer> WeightReader::Keep(size_t bytes) {
  bytes_ += bytes;
  return Buffer::Allocate(bytes);
}

// A tied head is read twice, so the sum may pass the total.
void WeightReader::Report(int64_t bytes) {
  done_.done = std::min(done_.done + bytes, done_.total);
  if (progress_ == nullptr || done_.done - reported_ < kReportBytes) return;
  reported_ = done_.done;
  progress_(done_);
}

absl::Status WeightReader::Convert(const std::string& name, float* out) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name));
  Report(static_cast<int64_t>(tensor->bytes.size()));
  return ReadElements(name, *tensor, 0, tensor->num_elements(), kernels::DType::kFloat32, out);
}

absl::StatusOr<Buffer> WeightReader::Place(const Buffer& host) {
  if (device_->in_host_memory()) return host;
  ANABRANCH_ASSIGN_OR_RETURN(Buffer placed, device_->Allocate(host.size()));
  const CopyPart part{host.data(), placed.data(), host.size()};
  ANABRANCH_RETURN_IF_ERROR(device_->Copy(CopyDirection::kToDevice, {part}));
  return placed;
}

absl::StatusOr<Buffer> WeightReader::PlaceStored(absl::Span<const StoredRows> parts) {
  std::vector<CopyPart> copies;
  size_t bytes = 0;
  for (const StoredRows& part : parts) {
    const TensorView& tensor = *part.tensor;
    const size_t row_bytes = tensor.bytes.size() / std::max<int64_t>(1, tensor.num_elements()) *
                             static_cast<size_t>(tensor.shape.back());
    const TensorView rows{
        tensor.dtype, {}, tensor.bytes.subspan(part.first * row_bytes, part.count * row_bytes)};
    if (!AllFinite(rows)) return NotFinite(part.name);
    copies.push_back({rows.bytes.data(), nullptr, rows.bytes.size()});
    bytes += rows.bytes.size();
  }
  bytes_ += bytes;
  ANABRANCH_ASSIGN_OR_RETURN(Buffer placed, device_->Allocate(bytes));
  auto* to = static_cast<char*>(placed.data());
  for (CopyPart& copy : copies) {
    copy.to = to;
    to += copy.bytes;
  }
  ANABRANCH_RETURN_IF_ERROR(device_->Copy(CopyDirection::kToDevice, copies));
  Report(static_cast<int64_t>(bytes));
  return placed;
}

absl::StatusOr<Buffer> WeightReader::ReadFloats(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer host, ReadHostFloats(name));
  return Place(host);
}

absl::StatusOr<Buffer> WeightReader::ReadHostFloats(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name));
  ANABRANCH_ASSIGN_OR_RETURN(Buffer values, Keep(tensor->num_elements() * sizeof(float)));
  ANABRANCH_RETURN_IF_ERROR(Convert(name, values.floats()));
  return values;
}

absl::StatusOr<Buffer> WeightReader::ReadConvolution(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer rows, ReadHostFloats(name));
  const std::vector<int64_t>& shape = file_.Find(name)->shape;
  const int64_t channels = shape[0], width = shape[2];
  ANABRANCH_ASSIGN_OR_RETURN(Buffer columns, Buffer::Allocate(rows.size()));
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t j = 0; j < width; ++j) {
      columns.floats()[j * channels + c] = rows.floats()[c * width + j];
    }
  }
  return Place(columns);
}

absl::StatusOr<Table> WeightReader::ReadTable(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name));
  Table table;
  const StoredRows all{name, tensor, 0, 1, tensor->shape.front()};
  if (!device_->in_host_memory() && StoredAsComputed(all, dtype_)) {
    ANABRANCH_ASSIGN_OR_RETURN(table.copy_, PlaceStored({all}));
    table.data_ = table.copy_.data();
    table.dtype_ = dtype_;
    return table;
  }
  const bool mapped = device_->in_host_memory() && UsableAsStored(*tensor, dtype_);
  table.dtype_ = mapped && tensor->dtype == TensorDType::kBF16 ? kernels::DType::kBFloat16 : dtype_;
  const size_t element = kernels::ElementBytes(dtype_);
  if (mapped) {
    table.data_ = tensor->bytes.data();
  } else {
    ANABRANCH_ASSIGN_OR_RETURN(table.copy_, Keep(tensor->num_elements() * element));
    table.data_ = table.copy_.data();
  }
  std::vector<float> block;  // mapped values are read too: none may be NaN
  for (int64_t begin = 0; begin < tensor->num_elements(); begin += kTableBlock) {
    block.resize(std::min(kTableBlock, tensor->num_elements() - begin));
    const auto count = static_cast<int64_t>(block.size());
    ANABRANCH_RETURN_IF_ERROR(ReadElements(name, *tensor, begin, count, dtype_, block.data()));
    Report(count * static_cast<int64_t>(TensorDTypeBytes(tensor->dtype)));
    if (mapped) continue;
    char* to = static_cast<char*>(table.copy_.data()) + begin * element;
    if (dtype_ == kernels::DType::kFloat32) {
      std::memcpy(to, block.data(), count * element);
    } else {
      ToBFloat16(block.data(), count, reinterpret_cast<uint16_t*>(to));
    }
  }
  if (!device_->in_host_memory()) {
    ANABRANCH_ASSIGN_OR_RETURN(table.copy_, Place(table.copy_));
    table.data_ = table.copy_.data();
  }
  return table;
}

absl::StatusOr<Linear> WeightReader::Pack(absl::Span<const StoredRows> parts, int64_t columns) {
  int64_t rows = 0;
  for (const StoredRows& part : parts) rows += part.count;
  const bool on_host = device_->in_host_memory();
  const MatrixLayout layout = on_host ? MatrixLayout::kPanels : MatrixLayout::kRowMajor;
  Linear linear;
  const auto direct = [this](const StoredRows& part) { return StoredAsComputed(part, dtype_); };
  if (!on_host && std::all_of(parts.begin(), parts.end(), direct)) {
    ANABRANCH_ASSIGN_OR_RETURN(linear.packed_, PlaceStored(parts));
    linear.weight_ = {linear.packed_.data(), dtype_, rows, columns};
    return linear;
  }
  ANABRANCH_ASSIGN_OR_RETURN(linear.packed_, Keep(MatrixBytes(layout, dtype_, rows, columns)));
  ANABRANCH_RETURN_IF_ERROR(PackRows(
      parts, columns, dtype_, layout, [this](int64_t bytes) { Report(bytes); },
      linear.packed_.data()));
  ANABRANCH_ASSIGN_OR_RETURN(linear.packed_, Place(linear.packed_));
  linear.weight_ = {linear.packed_.data(), dtype_, rows, columns};
  return linear;
}

absl::StatusOr<Linear> WeightReader::ReadLinear(absl::Span<const std::string> names, bool bias) {
  const std::string key = absl::StrJoin(names, " ");
  if (const auto found = linears_.find(key); found != linears_.end()) return found->second;
  std::vector<StoredRows> parts;
  for (const std::string& name : names) {
    ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name + ".weight", 2));
    parts.push_back({name + ".weight", tensor, 0, 1, tensor->shape[0]});
  }
  ANABRANCH_ASSIGN_OR_RETURN(Linear linear, Pack(parts, parts.back().tensor->shape[1]));
  if (bias) {
    ANABRANCH_ASSIGN_OR_RETURN(linear.bias_, Keep(linear.out_features() * sizeof(float)));
    float* at = linear.bias_.floats();
    for (size_t i = 0; i < names.size(); at += parts[i++].count) {
      ANABRANCH_RETURN_IF_ERROR(Convert(names[i] + ".bias", at));
    }
    ANABRANCH_ASSIGN_OR_RETURN(linear.bias_, Place(linear.bias_));
  }
  linears_.emplace(key, linear);
  return linear;
}

absl::StatusOr<Linear> WeightReader::ReadAlternating(const std::string& name, bool bias) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name + ".weight", 2));
  const int64_t rows = tensor->shape[0], half = rows / 2;
  const StoredRows parts[] = {{name + ".weight", tensor, 0, 2, rows - half},
                              {name + ".weight", tensor, 1, 2, half}};
  ANABRANCH_ASSIGN_OR_RETURN(Linear linear, Pack(parts, tensor->shape[1]));
  if (!bias) return linear;
  ANABRANCH_ASSIGN_OR_RETURN(const Buffer stored_bias, ReadHostFloats(name + ".bias"));
  ANABRANCH_ASSIGN_OR_RETURN(linear.bias_, Buffer::Allocate(stored_bias.size()));
  for (int64_t row = 0; row < rows; ++row) {
    linear.bias_.floats()[row % 2 * (rows - half) + row / 2] = stored_bias.floats()[row];
  }
  ANABRANCH_ASSIGN_OR_RETURN(linear.bias_, Place(linear.bias_));
  return linear;
}

absl::StatusOr<std::vector<Linear>> WeightReader::ReadLinears(const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(const TensorView* tensor, Checked(name, 3));
  const int64_t rows = tensor->shape[1], columns = tensor->shape[2];
  std::vector<Linear> layers;
  for (int64_t i = 0; i < tensor->shape[0]; ++i) {
    const StoredRows part{name, tensor, i * rows, 1, rows};
    ANABRANCH_ASSIGN_OR_RETURN(Linear layer, Pack({part}, columns));
    layers.push_back(std::move(layer));
  }
  return layers;
}

uint64_t EstimateWeightBytes(const TensorFile& file, kernels::DType dtype,
                             const ModelDescription& model) {
  uint64_t bytes = 0;
  const TensorView* table = file.Find(model.embedding_name);
  absl::flat_hash_set<const uint8_t*> seen;  // a tensor may have several names
  for (const auto& [name, tensor] : file.tensors()) {
    if (!seen.insert(tensor.bytes.data()).second) continue;
    const bool embedding = table != nullptr && table->bytes.data() == tensor.bytes.data();
    if (model.tied_head && name == model.head_name && !embedding) continue;
    if (embedding && !UsableAsStored(tensor, dtype)) {
      bytes += tensor.num_elements() * kernels::ElementBytes(dtype);
    }
    if (embedding && !model.tied_head) continue;
    // Matrices are packed, and so are stacks of them; [channels, 1, width] and vectors are floats.
    const std::vector<int64_t>& shape = tensor.shape;
    const size_t rank = shape.size();
    const bool packed = rank == 2 || (rank == 3 && shape[1] > 1);
    bytes += !packed ? tensor.num_elements() * sizeof(float)
                     : (rank == 3 ? shape[0] : 1) *
                           kernels::PackedBytes(dtype, shape[rank - 2], shape[rank - 1]);
  }
  return bytes;
}

}  // namespace anabranch
