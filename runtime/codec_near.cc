// Sixteen bits. A scale has 9 significant bits and a code 15, so their product is exact in float32,
// and the largest code of a group is rounded so that the same scale follows from it again: encoding
// what was decoded changes nothing, however often a state is saved and restored.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/quantize.h"
#include "runtime/tensor_codec.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr int64_t kGroup = 128;
constexpr int kScaleBits = 9;

float ScaleFor(float max) { return ScaleAbove(max / kMaxCode16, kScaleBits); }

// Rounds what has the magnitude `max` away from zero.
void RaiseLargest(const float* values, int64_t count, float max, float scale, char* codes) {
  const int32_t code =
      std::min(kMaxCode16, static_cast<int32_t>(std::ceil(double{max} / double{scale})));
  for (int64_t i = 0; i < count; ++i) {
    if (std::fabs(values[i]) != max) continue;
    const auto signed_code = static_cast<int16_t>(values[i] < 0 ? -code : code);
    std::memcpy(codes + 2 * i, &signed_code, 2);
  }
}

double EncodeGroup(const float* values, int64_t count, float max, float* scale, char* codes) {
  *scale = ScaleFor(max);
  const double off = Quantize16(values, count, *scale, codes);
  const auto largest = static_cast<float>(std::nearbyint(max / *scale));
  if (ScaleFor(largest * *scale) != *scale) RaiseLargest(values, count, max, *scale, codes);
  return off;
}

// Of the group that begins at element `first`.
float ScaleOf(const char* scales, int64_t first) {
  float scale;
  std::memcpy(&scale, scales + first / kGroup * static_cast<int64_t>(sizeof(float)), sizeof(scale));
  return scale;
}

}  // namespace

float CodecError::relative() const {
  return norm > 0 ? static_cast<float>(std::sqrt(off / norm)) : 0;
}

// Any code gives a finite number, also the least, -kMaxCode16 - 1, which no encoder writes.
bool IsScale(float scale) {
  return scale > 0 && scale <= std::numeric_limits<float>::max() / (kMaxCode16 + 1);
}

size_t GroupsBytes(int64_t count) {
  const int64_t groups = (count + kGroup - 1) / kGroup;
  return static_cast<size_t>(groups) * sizeof(float) + static_cast<size_t>(count) * 2;
}

bool EncodeGroups(absl::Span<const float> values, std::string& out, CodecError& error) {
  const auto count = static_cast<int64_t>(values.size());
  const float max = MaxAbs(values.data(), count);
  if (!std::isfinite(2 * max)) return false;
  const size_t start = out.size();
  out.resize(start + GroupsBytes(count));
  char* scales = out.data() + start;
  char* codes = scales + (count + kGroup - 1) / kGroup * static_cast<int64_t>(sizeof(float));
  for (int64_t i = 0; i < count; i += kGroup) {
    const int64_t size = std::min(kGroup, count - i);
    const float* group = values.data() + i;
    float scale = 1;
    error.off += EncodeGroup(group, size, MaxAbs(group, size), &scale, codes + 2 * i);
    std::memcpy(scales + i / kGroup * static_cast<int64_t>(sizeof(float)), &scale, sizeof(scale));
  }
  error.norm += SumOfSquares(values.data(), count);
  return true;
}

absl::Status CheckGroups(absl::string_view bytes, int64_t count) {
  if (bytes.size() != GroupsBytes(count)) {
    return absl::DataLossError(
        absl::StrCat("it has ", bytes.size(), " bytes instead of ", GroupsBytes(count)));
  }
  for (int64_t i = 0; i < count; i += kGroup) {
    if (!IsScale(ScaleOf(bytes.data(), i))) return absl::DataLossError("a scale is out of range");
  }
  return absl::OkStatus();
}

absl::Status DecodeGroups(absl::string_view bytes, absl::Span<float> values) {
  const auto count = static_cast<int64_t>(values.size());
  ANABRANCH_RETURN_IF_ERROR(CheckGroups(bytes, count));
  const char* codes =
      bytes.data() + (count + kGroup - 1) / kGroup * static_cast<int64_t>(sizeof(float));
  for (int64_t i = 0; i < count; i += kGroup) {
    Dequantize16(codes + 2 * i, std::min(kGroup, count - i), ScaleOf(bytes.data(), i),
                 values.data() + i);
  }
  return absl::OkStatus();
}

}  // namespace anabranch
