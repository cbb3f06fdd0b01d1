// Arithmetic of int8 states (kernels/int8_state.h) on the device: the same numbers as on the CPU,
// but for the last bit of 256 / scale. Only .cu files include it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/ptx.h"
#include "kernels/int8_state.h"

namespace anabranch::kernels::cuda {

// Scales of the slot that begins at byte `slot` of the array.
__device__ inline uint16_t* Int8Scales(const Acts& state, int64_t slot, int64_t scales) {
  return reinterpret_cast<uint16_t*>(static_cast<char*>(state.data) + slot + scales);
}

// What a group is rounded with.
struct Int8Scaling {
  uint16_t scale;
  // Int8Inverse to 2 units in the last place: whole multiples of the scale still round to
  // themselves.
  float inverse;
};
// Of a group that each aligned kLanes lanes have together. All lanes of the warp call it.
template <int kLanes, int kCount>
__device__ inline Int8Scaling Int8ScalingOf(const float (&values)[kCount]) {
  static_assert(kCount * kLanes == kInt8Group);
  float most = 0;
#pragma unroll
  for (int i = 0; i < kCount; ++i) most = MaxMagnitude(most, values[i]);
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    most = MaxMagnitude(most, __shfl_xor_sync(kAllLanes, most, step));
  }
  const uint16_t scale = Int8Scale(most);
  return {scale, scale == 0 ? 0.0f : __fdividef(256.0f, Int8ScaleValue(scale))};
}

// An element's bits before its noise is added: see RoundToInt8.
__device__ inline uint32_t Int8Sum(float value, float inverse) {
  return __float_as_uint(fmaf(value, inverse, kInt8Magic));
}
// RoundToInt8 of four neighbours, the first in the lowest byte. `noise`: a byte for each.
__device__ inline uint32_t RoundInt8Four(const float* v, float inverse, uint32_t noise) {
  // Two elements a word: sums are at most 2^16 - 1, so nothing is carried from one into the other.
  const uint32_t low = __byte_perm(Int8Sum(v[0], inverse), Int8Sum(v[1], inverse), 0x5410) +
                       __byte_perm(noise, 0, 0x4140);
  const uint32_t high = __byte_perm(Int8Sum(v[2], inverse), Int8Sum(v[3], inverse), 0x5410) +
                        __byte_perm(noise, 0, 0x4342);
  return __byte_perm(low, high, 0x7531) ^ 0x80808080u;  // 128 less
}
// And of one.
__device__ inline int8_t RoundInt8One(float value, float inverse, uint32_t noise_byte) {
  const uint32_t sum = (Int8Sum(value, inverse) & 0xffffu) + noise_byte;
  return static_cast<int8_t>(static_cast<int32_t>(sum >> 8) - 128);
}

// 2^15 + 128 + code as a float is the code's byte (with 128 added) in the middle of a constant's
// bits; both 2^15 + 128 and its product with a scale, which has 8 significant bits, are exact.
__device__ inline void UnpackInt8(const uint4& bits, uint16_t scale, float (&out)[kInt8Group]) {
  const float value = Int8ScaleValue(scale), zero = -32896.0f * value;
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < kInt8Group; ++i) {
    const uint32_t word = words[i / 4] ^ 0x80808080u;
    const uint32_t shifted = __byte_perm(word, 0x47000000u, 0x7504u | (i % 4) << 4);
    out[i] = fmaf(__uint_as_float(shifted), value, zero);
  }
}

}  // namespace anabranch::kernels::cuda
