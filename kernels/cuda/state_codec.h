// The stored forms of a state's tensors, made and read on the device, so that codes and not floats
// cross the link. Bit for bit the codes and scales of runtime/codec_near.cc and of
// codec_compact.cc before compression.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace anabranch::kernels::cuda {

// 16 bits: groups of kCodeGroup neighbours, the last perhaps shorter, have one scale each. Encoded:
// the groups' scales (float32), then the codes (int16).
inline constexpr int64_t kCodeGroup = 128;
constexpr int64_t NearBytes(int64_t count) {
  return (count + kCodeGroup - 1) / kCodeGroup * 4 + count * 2;
}

// 8 bits: the tensor is cut into matrices of rows x cols, the last perhaps of fewer rows. Encoded:
// an exponent (int8) for each column of each matrix, a scale (the upper half of a float32) for each
// row, then the codes (int8).
constexpr int64_t CompactBytes(int64_t count, int64_t rows, int64_t cols) {
  const int64_t all = count / cols;
  return (all + rows - 1) / rows * cols + all * 2 + count;
}

struct CodedTensor {
  float* values = nullptr;  // [count]
  void* encoded = nullptr;  // aligned to 4 bytes
  int64_t count = 0;
  int64_t rows = 0, cols = 0;  // 8 bits only: cols from 1 to kMaxCodedColumns divides count
};
inline constexpr int64_t kMaxCodedColumns = 2048;

// What encoding found out about a tensor. Sums of squares over all values: of what decoding them is
// off by, and of the values.
struct CodeMeasure {
  double off = 0, norm = 0;
  // 1: a value is not finite, too large or (halves) not exact, and the encoded bytes are useless.
  int32_t refused = 0;
};

struct CodeTensorsParams {
  absl::Span<const CodedTensor> tensors;  // list on the host
  // Encoding only: device, by tensor. The caller has set all bytes to 0: they are added to.
  CodeMeasure* measures = nullptr;
};
absl::Status EncodeNear(const CodeTensorsParams& params, cudaStream_t stream);
absl::Status EncodeCompact(const CodeTensorsParams& params, cudaStream_t stream);
// bfloat16 of float32 values that are exact in it.
absl::Status EncodeHalves(const CodeTensorsParams& params, cudaStream_t stream);
// What is encoded is trusted: the runtime has checked its checksums and scales, or does so beside
// this and throws the result away. `measures` is not looked at.
absl::Status DecodeNear(const CodeTensorsParams& params, cudaStream_t stream);
absl::Status DecodeCompact(const CodeTensorsParams& params, cudaStream_t stream);
absl::Status DecodeHalves(const CodeTensorsParams& params, cudaStream_t stream);

}  // namespace anabranch::kernels::cuda
