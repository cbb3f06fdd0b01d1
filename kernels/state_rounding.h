// How a recurrent state that slots keep in bfloat16 is rounded, where a launch ends and where it is
// read again: up or down at random with the chances that make the mean exact, so that updates much
// smaller than the state are not lost. "Random" is a hash of the tensor's seed, of how many tokens
// the sequence has read and of the element: the same tokens, split into the same launches, give the
// same bits. What bfloat16 holds exactly stays as it is.
#pragma once

#include <bit>
#include <cstdint>

namespace anabranch::kernels {

constexpr uint32_t RoundingKey(uint32_t seed, int64_t position) {
  uint32_t x = static_cast<uint32_t>(position) * 0x9e3779b1u ^ seed * 0x85ebca77u;
  x = (x ^ x >> 16) * 0x21f0aaadu;
  x = (x ^ x >> 15) * 0x735a2d97u;
  return x ^ x >> 15;
}

// A byte for each of the elements 4 quad to 4 quad + 3 of a sequence's tensor, the lowest first.
constexpr uint32_t RoundingBits(uint32_t key, uint32_t quad) {
  uint32_t x = quad * 0x9e3779b1u + key;
  x = (x ^ x >> 16) * 0x21f0aaadu;
  x = (x ^ x >> 15) * 0x735a2d97u;
  return x ^ x >> 15;
}

// `noise` below 2^16. NaN and infinities stay what they are.
constexpr uint16_t RoundToBf16At(float value, uint32_t noise) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) {
    const bool nan = (bits & 0x007fffffu) != 0;
    return static_cast<uint16_t>(bits >> 16 | (nan ? 0x40u : 0u));
  }
  return static_cast<uint16_t>((bits + noise) >> 16);
}

// Element `index` of a sequence's tensor. 256 heights of noise, the middle of each: the mean is off
// by at most 1/512 of a unit in the last place.
constexpr uint16_t RoundElement(float value, uint32_t key, uint32_t index) {
  const uint32_t byte = RoundingBits(key, index / 4) >> 8 * (index % 4) & 0xffu;
  return RoundToBf16At(value, byte << 8 | 0x80u);
}

}  // namespace anabranch::kernels
