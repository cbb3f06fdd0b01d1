// The arithmetic of the codecs near and compact on the device. Only .cu files include it.
//
// Bit equality with the CPU (runtime/quantize.h, codec_near.cc, codec_compact.cc) asks for its very
// operations: products and quotients in float32, each rounded; codes to the nearest, ties to even;
// the smallest scale at or above by adding to the bits. No product that a code depends on is added
// to anything, so nothing is contracted there.
#pragma once

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/device.h"

namespace anabranch::kernels::cuda {

inline constexpr int32_t kMaxCode16 = 32767, kMaxCode8 = 127;
inline constexpr int kScaleBits16 = 9, kScaleBits8 = 8;
inline constexpr int kLowestPower = -64;
// A tensor is refused if its largest magnitude times this is not finite.
inline constexpr float kHeadroom16 = 2, kHeadroom8 = 512;

// runtime/quantize.h's ScaleAbove.
__device__ inline float ScaleAbove(float value, int bits) {
  uint32_t raw = __float_as_uint(fmaxf(value, FLT_MIN));
  const uint32_t dropped = (uint32_t{1} << (24 - bits)) - 1;
  raw = (raw + dropped) & ~dropped;
  return __uint_as_float(raw);
}
__device__ inline float ScaleFor16(float max) {
  return ScaleAbove(__fdiv_rn(max, static_cast<float>(kMaxCode16)), kScaleBits16);
}
__device__ inline float ScaleFor8(float max) {
  return ScaleAbove(__fdiv_rn(max, static_cast<float>(kMaxCode8)), kScaleBits8);
}

// The power of two at or above what a column gets to where its rows' largest is 1.
__device__ inline int ColumnExponent(float largest) {
  int exponent = 0;
  if (largest > 0 && frexpf(largest, &exponent) == 0.5f) --exponent;
  return min(max(exponent, kLowestPower), 0);
}

// Exact for exponents from -64 to 64.
__device__ inline float PowerOfTwo(int exponent) {
  return __uint_as_float(static_cast<uint32_t>(exponent + 127) << 23);
}

__device__ inline int32_t CodeOf(float scaled) {
  return __float2int_rn(fmaxf(fminf(scaled, kMaxCode8), -kMaxCode8));
}

// What decoding a few values is off by, and their squares: few enough for float32.
struct FewSquares {
  float off = 0, norm = 0;
  __device__ void Add(float value, float decoded) {
    const float by = value - decoded;
    off += by * by;
    norm += value * value;
  }
};

}  // namespace anabranch::kernels::cuda
