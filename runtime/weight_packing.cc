#include "runtime/weight_packing.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/gemm.h"
#include "runtime/float_convert.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr int64_t kBlockBytes = 4 << 20;

// Whole panels, about kBlockBytes of them: a panel is packed without knowing its neighbours.
int64_t BlockRows(int64_t columns) {
  const int64_t panel_bytes =
      kernels::kPanelColumns * std::max<int64_t>(columns, 1) * static_cast<int64_t>(sizeof(float));
  return kernels::kPanelColumns * std::max<int64_t>(1, kBlockBytes / panel_bytes);
}

// Collects rows and packs them when there is a block of them.
class BlockPacker {
 public:
  BlockPacker(int64_t columns, kernels::DType dtype, MatrixLayout layout, void* packed)
      : columns_(columns),
        block_rows_(BlockRows(columns)),
        dtype_(dtype),
        layout_(layout),
        packed_(static_cast<char*>(packed)) {}

  float* NextRow() {
    // Grown to what small matrices need, not to a block for each of them.
    block_.resize((rows_ + 1) * columns_);
    return block_.data() + rows_ * columns_;
  }
  void RowDone() {
    if (++rows_ == block_rows_) Flush();
  }
  void Flush() {
    if (rows_ == 0) return;
    const void* source = block_.data();
    if (dtype_ == kernels::DType::kBFloat16) {
      halves_.resize(rows_ * columns_);
      ToBFloat16(block_.data(), rows_ * columns_, halves_.data());
      source = halves_.data();
    }
    const size_t bytes = MatrixBytes(layout_, dtype_, rows_, columns_);
    if (layout_ == MatrixLayout::kPanels) {
      kernels::PackMatrix(dtype_, source, rows_, columns_, packed_);
    } else {
      std::memcpy(packed_, source, bytes);
    }
    packed_ += bytes;
    rows_ = 0;
  }

 private:
  const int64_t columns_, block_rows_;
  const kernels::DType dtype_;
  const MatrixLayout layout_;
  char* packed_;  // of the next block
  int64_t rows_ = 0;
  std::vector<float> block_;
  std::vector<uint16_t> halves_;
};

}  // namespace

size_t MatrixBytes(MatrixLayout layout, kernels::DType dtype, int64_t rows, int64_t columns) {
  if (layout == MatrixLayout::kPanels) return kernels::PackedBytes(dtype, rows, columns);
  return static_cast<size_t>(rows * columns * kernels::ElementBytes(dtype));
}

absl::Status NotFinite(absl::string_view name) {
  return absl::DataLossError(absl::StrCat("tensor '", name, "' has NaN or infinite values"));
}

absl::Status ReadElements(absl::string_view name, const TensorView& tensor, int64_t begin,
                          int64_t count, kernels::DType dtype, float* out) {
  const size_t element = TensorDTypeBytes(tensor.dtype);
  const TensorView part{tensor.dtype, {}, tensor.bytes.subspan(begin * element, count * element)};
  ANABRANCH_RETURN_IF_ERROR(ToFloats(part, out));
  if (dtype == kernels::DType::kBFloat16) RoundToBFloat16(out, count);
  if (AllFinite(out, count)) return absl::OkStatus();
  return NotFinite(name);
}

absl::Status PackRows(absl::Span<const StoredRows> parts, int64_t columns, kernels::DType dtype,
                      MatrixLayout layout, absl::FunctionRef<void(int64_t bytes)> done,
                      void* packed) {
  BlockPacker packer(columns, dtype, layout, packed);
  for (const StoredRows& part : parts) {
    const auto row_bytes = static_cast<int64_t>(columns * TensorDTypeBytes(part.tensor->dtype));
    for (int64_t row = 0; row < part.count; ++row) {
      ANABRANCH_RETURN_IF_ERROR(ReadElements(part.name, *part.tensor,
                                             (part.first + row * part.step) * columns, columns,
                                             dtype, packer.NextRow()));
      packer.RowDone();
      done(row_bytes);
    }
  }
  packer.Flush();
  return absl::OkStatus();
}

}  // namespace anabranch
