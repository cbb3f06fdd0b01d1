// Recurrent states that slots keep in int8: an element is its code times a scale that it shares
// with its group, 16 neighbours of a row. A slot holds the codes of the tensor, as many bytes as
// there are elements, and then the groups' scales, the upper halves of float32: 1.125 bytes an
// element.
//
// A scale is what makes the largest of its group 127, rounded up. Codes are rounded at random as
// bfloat16 states are (kernels/state_rounding.h): the mean is exact, and what is a whole multiple
// of the scale stays as it is. A group that holds a NaN or more than 2^100 becomes NaN as a whole.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/activations.h"
#include "kernels/state_rounding.h"

namespace anabranch::kernels {

inline constexpr int kInt8Group = 16;  // elements; rows must be whole groups

// Of a tensor of so many elements.
constexpr int64_t Int8StateBytes(int64_t elements) {
  return elements + elements / kInt8Group * static_cast<int64_t>(sizeof(uint16_t));
}

inline constexpr float kInt8Largest = 0x1p100f;

// The scale of a group whose largest magnitude is `most`. What is below 2^-100 becomes 0.
constexpr uint16_t Int8Scale(float most) {
  if (!(most <= kInt8Largest)) return 0x7fc0;
  if (most < 0x1p-100f) return 0;
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(most * (1.0f / 127)) + 0xffffu) >> 16);
}
constexpr float Int8ScaleValue(uint16_t scale) {
  return std::bit_cast<float>(uint32_t{scale} << 16);
}
// What RoundToInt8 multiplies by: 256 / scale, or 0.
constexpr float Int8Inverse(uint16_t scale) {
  return scale == 0 ? 0.0f : 256.0f / Int8ScaleValue(scale);
}

// What is added to an element times 256 / scale (magnitude at most 127 * 256), so that the sum's
// low 16 bits are it as a whole number, rounded to nearest, plus 128 * 256.
inline constexpr float kInt8Magic = 0x1p23f + 0x1p15f;

// `noise`: one byte. 128 rounds to nearest.
inline int8_t RoundToInt8(float value, float inverse, uint32_t noise) {
  const auto bits = std::bit_cast<uint32_t>(value * inverse + kInt8Magic);
  return static_cast<int8_t>(static_cast<int32_t>(((bits & 0xffffu) + noise) >> 8) - 128);
}

// A group from its codes and back.
inline void Int8ToFloats(const int8_t* codes, uint16_t scale, float* out) {
  const float value = Int8ScaleValue(scale);
  for (int i = 0; i < kInt8Group; ++i) out[i] = static_cast<float>(codes[i]) * value;
}
// Returns the scale. `noise(quad)` gives four bytes, for the elements 4 quad to 4 quad + 3, the
// lowest for the first.
template <class Noise>
uint16_t FloatsToInt8(const float* values, const Noise& noise, int8_t* codes) {
  // Magnitudes are ordered as their bits are, with infinity and NaN above all others.
  uint32_t most = 0;
  for (int i = 0; i < kInt8Group; ++i) {
    most = std::max(most, std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu);
  }
  const uint16_t scale = Int8Scale(std::bit_cast<float>(most));
  const float inverse = Int8Inverse(scale);
  uint8_t bytes[kInt8Group];
  for (uint32_t quad = 0; quad < kInt8Group / 4; ++quad) {
    const uint32_t four = noise(quad);
    for (int i = 0; i < 4; ++i) bytes[4 * quad + i] = static_cast<uint8_t>(four >> 8 * i);
  }
  for (int i = 0; i < kInt8Group; ++i) codes[i] = RoundToInt8(values[i], inverse, bytes[i]);
  return scale;
}

// For checks of a scan's parameters: whether a state in int8 has its scales.
template <class Params>
bool HasScales(const Params& p) {
  return p.state.dtype != DType::kInt8 ||
         (p.state_dim % kInt8Group == 0 && p.state_scales > 0 && p.state_scales % 2 == 0);
}

}  // namespace anabranch::kernels
