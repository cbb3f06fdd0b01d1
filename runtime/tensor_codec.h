// One tensor, or part of one, in the forms that the lossy codecs give it. Each form is a pure
// function of the values; what is decoded and encoded again gives the same bytes, where its
// function says so. docs/STATE_FORMAT.md has the bytes.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace anabranch {

// What an encoding was off by: sums of squares over what it was given.
struct CodecError {
  double off = 0, norm = 0;

  void Add(const CodecError& other) { off += other.off, norm += other.norm; }
  // |decoded - original| / |original|; 0 for zeros.
  float relative() const;
};

// How a tensor is cut into matrices that get scales for their rows and their columns: `rows` x
// `cols` each, the last one perhaps of fewer rows; contiguous.
struct MatrixCut {
  int64_t rows = 1, cols = 1;
};

// --- 16-bit integers (codec_near.cc) ---
// Groups of 128 neighbours with one scale each, the last group perhaps shorter. Encoding what was
// decoded gives the same bytes.
size_t GroupsBytes(int64_t count);
// Appends GroupsBytes to `out`. False, and nothing is appended, if a value is not finite or so
// large that twice it is not: such a tensor is stored as it is.
bool EncodeGroups(absl::Span<const float> values, std::string& out, CodecError& error);
// DATA_LOSS says what is wrong, and may leave some of `values` written.
absl::Status DecodeGroups(absl::string_view bytes, absl::Span<float> values);
// Whether DecodeGroups would take the bytes.
absl::Status CheckGroups(absl::string_view bytes, int64_t count);

// --- 8-bit integers (codec_compact.cc) ---
// Scales for rows and columns. `cut.cols` divides the number of values. False as above.
size_t PackedBytes(int64_t count, const MatrixCut& cut);
bool PackMatrices(absl::Span<const float> values, const MatrixCut& cut, std::string& out,
                  CodecError& error);
absl::Status UnpackMatrices(absl::string_view bytes, const MatrixCut& cut,
                            absl::Span<float> values);
// Whether UnpackMatrices would take the bytes.
absl::Status CheckMatrices(absl::string_view bytes, const MatrixCut& cut, int64_t count);
// The same and then zstd.
bool EncodeMatrices(absl::Span<const float> values, const MatrixCut& cut, std::string& out,
                    CodecError& error);
absl::Status DecodeMatrices(absl::string_view bytes, const MatrixCut& cut,
                            absl::Span<float> values);
// At most what EncodeMatrices gives.
size_t MatricesBytesLimit(int64_t count);

// One matrix with a scale for each column (keys: of a channel over the tokens), or for each row
// (values: of a token). Encoding what was decoded gives the same bytes.
enum class ScaledBy { kColumns, kRows };
size_t ScaledBytes(const MatrixCut& matrix, ScaledBy by);
// Appends ScaledBytes to `out`. False as above.
bool EncodeScaled(absl::Span<const float> values, const MatrixCut& matrix, ScaledBy by,
                  std::string& out, CodecError& error);
absl::Status DecodeScaled(absl::string_view bytes, const MatrixCut& matrix, ScaledBy by,
                          absl::Span<float> values);

// Appends what zstd makes of the bytes. False, and nothing is appended, if it fails.
bool Compress(absl::string_view bytes, std::string& out);
// Into exactly `size` bytes; the frame's own size is checked before anything is decompressed.
// DATA_LOSS.
absl::StatusOr<std::string> Decompress(absl::string_view bytes, size_t size);

// A scale that decoding accepts: positive, and finite also times the largest code.
bool IsScale(float scale);

}  // namespace anabranch
