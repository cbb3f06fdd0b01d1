// The lossy codecs' arithmetic on the device, so that codes and not floats cross to the host. Bit
// for bit the codes and scales of runtime/codec_near.cc and of codec_compact.cc before compression.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/launch.h"

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
  void* encoded = nullptr;  // NearBytes() or CompactBytes(); aligned to 4 bytes
  int64_t count = 0;
  int64_t rows = 0, cols = 0;  // 8 bits only: cols from 1 to kMaxCodedColumns divides count
};
inline constexpr int64_t kMaxCodedColumns = 2048;

struct CodeTensorsParams {
  absl::Span<const CodedTensor> tensors;  // list on the host
  // Encoding only: device, by tensor; set to 1 where a value is not finite or too large for the
  // codec, whose codes are then useless: such a tensor is stored as it is. Otherwise 0.
  int32_t* refused = nullptr;
};
absl::Status EncodeNear(const CodeTensorsParams& params, const Launch& launch);
absl::Status EncodeCompact(const CodeTensorsParams& params, const Launch& launch);
// What is encoded is trusted: the runtime has checked its checksums and scales.
absl::Status DecodeNear(const CodeTensorsParams& params, const Launch& launch);
absl::Status DecodeCompact(const CodeTensorsParams& params, const Launch& launch);

}  // namespace anabranch::kernels::cuda
