// Eight bits. A column of a recurrent tensor is a direction of the state that all rows share, and
// directions differ in size by orders of magnitude: a power of two for each column (one byte) takes
// that out, and a scale for each row (two bytes) the rest.
#include <zstd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/quantize.h"
#include "runtime/tensor_codec.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr int kZstdLevel = 3;
constexpr int kScaleBits = 8;  // a scale is the upper half of a float32
constexpr size_t kScaleBytes = 2;
constexpr int kLowestPower = -64;
// Keys and values get fewer steps than a byte has, and zstd takes what they leave free. Values need
// fewer than keys: what they are off by averages out over tokens (docs/CODECS.md has the figures).
// Whoever decodes knows the steps from the scales.
constexpr int32_t kMaxKeyCode = 63, kMaxValueCode = 42;

void PutScale(float scale, char* to) {
  uint32_t bits;
  std::memcpy(&bits, &scale, sizeof(bits));
  const auto half = static_cast<uint16_t>(bits >> 16);
  std::memcpy(to, &half, sizeof(half));
}

float GetScale(const char* from) {
  uint16_t half;
  std::memcpy(&half, from, sizeof(half));
  const uint32_t bits = uint32_t{half} << 16;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return scale;
}

float ScaleFor(float max, int32_t largest_code) {
  return ScaleAbove(max / static_cast<float>(largest_code), kScaleBits);
}

// Of a tensor of `count` values: exponents of all columns, scales of all rows, codes.
struct Sections {
  Sections(int64_t count, const MatrixCut& cut) {
    const int64_t rows = count / cut.cols;
    matrices = (rows + cut.rows - 1) / cut.rows;
    scales = matrices * cut.cols;
    codes = scales + rows * static_cast<int64_t>(kScaleBytes);
    end = codes + count;
  }
  int64_t matrices = 0, scales = 0, codes = 0, end = 0;  // all but the first: offsets
};

// Row by row, how large each column gets where the row's largest is 1; then the power of two that
// each column is divided by.
std::vector<int> ColumnExponents(const float* matrix, int64_t rows, int64_t cols) {
  std::vector<float> largest(cols, 0);
  for (int64_t r = 0; r < rows; ++r) {
    const float max = MaxAbs(matrix + r * cols, cols);
    if (max >= std::numeric_limits<float>::min()) {
      MaxAbsInto(matrix + r * cols, cols, 1 / max, largest.data());
    }
  }
  std::vector<int> exponents(cols, 0);
  for (int64_t c = 0; c < cols; ++c) {
    // The power of two at or above it; 64 of them are far more than 8-bit codes can tell apart.
    if (largest[c] > 0 && std::frexp(largest[c], &exponents[c]) == 0.5f) --exponents[c];
    exponents[c] = std::clamp(exponents[c], kLowestPower, 0);
  }
  return exponents;
}

void Factors(const int8_t* exponents, int64_t cols, std::vector<float>& column,
             std::vector<float>& inverse) {
  column.resize(cols);
  inverse.resize(cols);
  for (int64_t c = 0; c < cols; ++c) {
    column[c] = std::ldexp(1.0f, exponents[c]);
    inverse[c] = std::ldexp(1.0f, -exponents[c]);
  }
}

double EncodeMatrix(const float* matrix, int64_t rows, int64_t cols, char* exponents, char* scales,
                    char* codes) {
  const std::vector<int> powers = ColumnExponents(matrix, rows, cols);
  std::vector<int8_t> bytes(powers.begin(), powers.end());
  std::memcpy(exponents, bytes.data(), bytes.size());
  std::vector<float> column, inverse;
  Factors(bytes.data(), cols, column, inverse);
  double off = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = matrix + r * cols;
    const float scale = ScaleFor(MaxAbsTimes(row, inverse.data(), cols), kMaxCode8);
    PutScale(scale, scales + r * static_cast<int64_t>(kScaleBytes));
    off += Quantize8(row, cols, scale, column.data(), inverse.data(), codes + r * cols);
  }
  return off;
}

// Of scales that were checked.
void DecodeMatrix(const char* exponents, const char* scales, const char* codes, int64_t rows,
                  int64_t cols, float* matrix) {
  std::vector<int8_t> powers(cols);
  std::memcpy(powers.data(), exponents, powers.size());
  std::vector<float> column, inverse;
  Factors(powers.data(), cols, column, inverse);
  for (int64_t r = 0; r < rows; ++r) {
    Dequantize8(codes + r * cols, cols, GetScale(scales + r * static_cast<int64_t>(kScaleBytes)),
                column.data(), matrix + r * cols);
  }
}

bool Encodable(absl::Span<const float> values) {
  // Twice, because rounding up can pass a value by less than that; and by what IsScale allows.
  return std::isfinite(256 * 2 * MaxAbs(values.data(), static_cast<int64_t>(values.size())));
}

// The scale that what is decoded leads to again: the code of the largest magnitude is raised where
// rounding would lose it.
int32_t LargestCode(float max, float scale, int32_t top) {
  const auto nearest = static_cast<int32_t>(std::nearbyint(max / scale));
  if (ScaleFor(static_cast<float>(nearest) * scale, top) == scale) return nearest;
  return std::min(top, static_cast<int32_t>(std::ceil(double{max} / double{scale})));
}

void RaiseLargest(const float* values, int64_t count, const float* max, int64_t max_step,
                  const float* scales, int64_t scale_step, int32_t top, char* codes) {
  for (int64_t i = 0; i < count; ++i) {
    const float largest = max[i * max_step];
    if (largest == 0 || std::fabs(values[i]) != largest) continue;
    const int32_t code = LargestCode(largest, scales[i * scale_step], top);
    codes[i] = static_cast<char>(values[i] < 0 ? -code : code);
  }
}

}  // namespace

bool Compress(absl::string_view bytes, std::string& out) {
  const size_t start = out.size();
  out.resize(start + ZSTD_compressBound(bytes.size()));
  const size_t size =
      ZSTD_compress(out.data() + start, out.size() - start, bytes.data(), bytes.size(), kZstdLevel);
  const bool done = ZSTD_isError(size) == 0;
  out.resize(done ? start + size : start);
  return done;
}

absl::StatusOr<std::string> Decompress(absl::string_view bytes, size_t size) {
  if (ZSTD_getFrameContentSize(bytes.data(), bytes.size()) != size) {
    return absl::DataLossError("it does not decompress to its size");
  }
  std::string plain(size, '\0');
  const size_t got = ZSTD_decompress(plain.data(), plain.size(), bytes.data(), bytes.size());
  if (ZSTD_isError(got) != 0 || got != size) return absl::DataLossError("it does not decompress");
  return plain;
}

size_t MatricesBytesLimit(int64_t count) {
  // Exponents and scales are at most as many as values, and three bytes each; zstd adds little.
  return ZSTD_compressBound(static_cast<size_t>(count) * 4);
}

size_t PackedBytes(int64_t count, const MatrixCut& cut) {
  return static_cast<size_t>(Sections(count, cut).end);
}

bool PackMatrices(absl::Span<const float> values, const MatrixCut& cut, std::string& out,
                  CodecError& error) {
  if (!Encodable(values)) return false;
  const auto count = static_cast<int64_t>(values.size());
  const Sections at(count, cut);
  const size_t start = out.size();
  out.resize(start + static_cast<size_t>(at.end));
  char* const to = out.data() + start;
  const int64_t rows = count / cut.cols;
  for (int64_t m = 0; m < at.matrices; ++m) {
    const int64_t row = m * cut.rows;
    error.off += EncodeMatrix(
        values.data() + row * cut.cols, std::min(cut.rows, rows - row), cut.cols, to + m * cut.cols,
        to + at.scales + row * static_cast<int64_t>(kScaleBytes), to + at.codes + row * cut.cols);
  }
  error.norm += SumOfSquares(values.data(), count);
  return true;
}

absl::Status CheckMatrices(absl::string_view bytes, const MatrixCut& cut, int64_t count) {
  const Sections at(count, cut);
  if (bytes.size() != static_cast<size_t>(at.end)) {
    return absl::DataLossError(absl::StrCat("it has ", bytes.size(), " bytes instead of ", at.end));
  }
  for (int64_t i = 0; i < at.scales; ++i) {
    const auto power = static_cast<int8_t>(bytes[i]);
    if (power < kLowestPower || power > 0) {
      return absl::DataLossError("a column's scale is out of range");
    }
  }
  for (int64_t i = at.scales; i < at.codes; i += static_cast<int64_t>(kScaleBytes)) {
    if (!IsScale(GetScale(bytes.data() + i))) {
      return absl::DataLossError("a row's scale is out of range");
    }
  }
  return absl::OkStatus();
}

absl::Status UnpackMatrices(absl::string_view bytes, const MatrixCut& cut,
                            absl::Span<float> values) {
  const auto count = static_cast<int64_t>(values.size());
  ANABRANCH_RETURN_IF_ERROR(CheckMatrices(bytes, cut, count));
  const Sections at(count, cut);
  const int64_t rows = count / cut.cols;
  for (int64_t m = 0; m < at.matrices; ++m) {
    const int64_t row = m * cut.rows;
    DecodeMatrix(bytes.data() + m * cut.cols,
                 bytes.data() + at.scales + row * static_cast<int64_t>(kScaleBytes),
                 bytes.data() + at.codes + row * cut.cols, std::min(cut.rows, rows - row), cut.cols,
                 values.data() + row * cut.cols);
  }
  return absl::OkStatus();
}

bool EncodeMatrices(absl::Span<const float> values, const MatrixCut& cut, std::string& out,
                    CodecError& error) {
  std::string plain;
  return PackMatrices(values, cut, plain, error) && Compress(plain, out);
}

absl::Status DecodeMatrices(absl::string_view bytes, const MatrixCut& cut,
                            absl::Span<float> values) {
  ANABRANCH_ASSIGN_OR_RETURN(
      const std::string plain,
      Decompress(bytes, PackedBytes(static_cast<int64_t>(values.size()), cut)));
  return UnpackMatrices(plain, cut, values);
}

size_t ScaledBytes(const MatrixCut& matrix, ScaledBy by) {
  const int64_t scales = by == ScaledBy::kColumns ? matrix.cols : matrix.rows;
  return static_cast<size_t>(scales) * kScaleBytes + static_cast<size_t>(matrix.rows * matrix.cols);
}

bool EncodeScaled(absl::Span<const float> values, const MatrixCut& matrix, ScaledBy by,
                  std::string& out, CodecError& error) {
  if (!Encodable(values)) return false;
  const int64_t rows = matrix.rows, cols = matrix.cols;
  const bool by_rows = by == ScaledBy::kRows;
  const int32_t top = by_rows ? kMaxValueCode : kMaxKeyCode;
  const size_t start = out.size();
  out.resize(start + ScaledBytes(matrix, by));
  char* scales = out.data() + start;
  char* codes = scales + (by_rows ? rows : cols) * static_cast<int64_t>(kScaleBytes);
  std::vector<float> max(cols, 0), column(cols, 1), inverse(cols, 1);
  if (!by_rows) {
    for (int64_t r = 0; r < rows; ++r) MaxAbsInto(values.data() + r * cols, cols, 1, max.data());
    for (int64_t c = 0; c < cols; ++c) {
      column[c] = ScaleFor(max[c], top);
      inverse[c] = 1 / column[c];
      PutScale(column[c], scales + c * static_cast<int64_t>(kScaleBytes));
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = values.data() + r * cols;
    const float row_max = by_rows ? MaxAbs(row, cols) : 0;
    const float scale = by_rows ? ScaleFor(row_max, top) : 1;
    if (by_rows) PutScale(scale, scales + r * static_cast<int64_t>(kScaleBytes));
    error.off += Quantize8(row, cols, scale, column.data(), inverse.data(), codes + r * cols);
    RaiseLargest(row, cols, by_rows ? &row_max : max.data(), by_rows ? 0 : 1,
                 by_rows ? &scale : column.data(), by_rows ? 0 : 1, top, codes + r * cols);
  }
  error.norm += SumOfSquares(values.data(), rows * cols);
  return true;
}

absl::Status DecodeScaled(absl::string_view bytes, const MatrixCut& matrix, ScaledBy by,
                          absl::Span<float> values) {
  if (bytes.size() != ScaledBytes(matrix, by)) {
    return absl::DataLossError(
        absl::StrCat("it has ", bytes.size(), " bytes instead of ", ScaledBytes(matrix, by)));
  }
  const bool by_rows = by == ScaledBy::kRows;
  const int64_t count = by_rows ? matrix.rows : matrix.cols;
  std::vector<float> scales(count);
  for (int64_t i = 0; i < count; ++i) {
    scales[i] = GetScale(bytes.data() + i * static_cast<int64_t>(kScaleBytes));
    if (!IsScale(scales[i])) return absl::DataLossError("a scale is out of range");
  }
  const char* codes = bytes.data() + count * static_cast<int64_t>(kScaleBytes);
  const std::vector<float> ones(by_rows ? matrix.cols : 0, 1);
  for (int64_t r = 0; r < matrix.rows; ++r) {
    Dequantize8(codes + r * matrix.cols, matrix.cols, by_rows ? scales[r] : 1,
                by_rows ? ones.data() : scales.data(), values.data() + r * matrix.cols);
  }
  return absl::OkStatus();
}

}  // namespace anabranch
