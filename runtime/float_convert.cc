#include "runtime/float_convert.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

// File data may be unaligned, so elements are copied out one by one.
template <typename Half>
void Widen(const TensorView& tensor, float* out) {
  const uint8_t* in = tensor.bytes.data();
  const int64_t count = tensor.num_elements();
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, in + i * sizeof(bits), sizeof(bits));
    out[i] = static_cast<float>(Half(bits, Half::from_bits()));
  }
}

// Infinities and NaN have all bits of the exponent set. Integers and blocks of a constant length,
// so that the loop is vectorised.
template <typename Bits>
bool NoneHasExponent(const void* elements, int64_t count, Bits exponent) {
  constexpr int64_t kBlock = 1024;
  const auto* in = static_cast<const char*>(elements);
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    Bits block[kBlock] = {};
    std::memcpy(block, in + begin * sizeof(Bits), std::min(kBlock, count - begin) * sizeof(Bits));
    Bits found = 0;
    for (int64_t i = 0; i < kBlock; ++i) {
      found |= static_cast<Bits>((block[i] & exponent) == exponent);
    }
    if (found != 0) return false;
  }
  return true;
}

}  // namespace

absl::Status ToFloats(const TensorView& tensor, float* out) {
  switch (tensor.dtype) {
    case TensorDType::kF32:
      if (!tensor.bytes.empty()) std::memcpy(out, tensor.bytes.data(), tensor.bytes.size());
      return absl::OkStatus();
    case TensorDType::kBF16:
      Widen<c10::BFloat16>(tensor, out);
      return absl::OkStatus();
    case TensorDType::kF16:
      Widen<c10::Half>(tensor, out);
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError(absl::StrCat("dtype ", TensorDTypeName(tensor.dtype),
                                                     " where F32, BF16 or F16 is needed"));
  }
}

void RoundToBFloat16(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(c10::BFloat16(values[i]));
}

void ToBFloat16(const float* values, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = c10::BFloat16(values[i]).x;
}

uint16_t ToBFloat16(float value) {
  uint16_t bits = 0;
  ToBFloat16(&value, 1, &bits);
  return bits;
}

float FromBFloat16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

bool AllFinite(const float* values, int64_t count) {
  return NoneHasExponent<uint32_t>(values, count, 0x7f800000);
}

bool AllFinite(const TensorView& tensor) {
  const int64_t count = tensor.num_elements();
  return tensor.dtype == TensorDType::kBF16
             ? NoneHasExponent<uint16_t>(tensor.bytes.data(), count, 0x7f80)
             : NoneHasExponent<uint32_t>(tensor.bytes.data(), count, 0x7f800000);
}

}  // namespace anabranch
