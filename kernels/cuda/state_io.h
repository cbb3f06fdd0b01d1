// Recurrent states on their way between memory, where they are float32 or bfloat16, and registers.
// Only .cu files include it.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/state_rounding.h"

namespace anabranch::kernels::cuda {

// What the state of sequence `seq` after `rows` of its rows is rounded by; nothing in float32.
template <class Params>
__device__ inline uint32_t RoundingKeyOf(const Params& p, int32_t seq, int64_t rows) {
  if (p.state.dtype == DType::kFloat32) return 0;
  return RoundingKey(p.rounding_seed, p.positions[seq] + rows);
}

// RoundElement of four neighbours. Where `any` is NaN (which it is if one of them is), they are cut
// off instead: noise on top of a NaN could make a number of it.
__device__ inline uint2 RoundFour(const float* v, uint32_t key, uint32_t quad, float any) {
  const bool numbers = any == any;
  const uint32_t noise = numbers ? RoundingBits(key, quad) : 0;
  const uint32_t middle = numbers ? 0x80u : 0;
  uint32_t bits[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    // Bytes, from the lowest: middle, the element's noise, 0, 0.
    bits[i] = __float_as_uint(v[i]) + __byte_perm(noise, middle, 0x5504 | i << 4);
  }
  return make_uint2(__byte_perm(bits[0], bits[1], 0x7632), __byte_perm(bits[2], bits[3], 0x7632));
}

// kCount neighbours from `index` of the sequence's tensor on, at `at` of the array. kCount is 1, 2
// or 4; `index` a multiple of it, `at` aligned for it.
template <int kCount>
__device__ inline void StoreState(const Acts& state, int64_t at, uint32_t index, uint32_t key,
                                  const float (&values)[kCount]) {
  if (state.dtype == DType::kFloat32) {
    auto* to = static_cast<float*>(state.data) + at;
    if constexpr (kCount == 1) {
      *to = values[0];
    } else {
#pragma unroll
      for (int i = 0; i < kCount; i += 2) {
        *reinterpret_cast<float2*>(to + i) = make_float2(values[i], values[i + 1]);
      }
    }
    return;
  }
  auto* to = static_cast<uint16_t*>(state.data) + at;
  if constexpr (kCount == 4) {
    const float any = values[0] * 0 + values[1] * 0 + values[2] * 0 + values[3] * 0;
    *reinterpret_cast<uint2*>(to) = RoundFour(values, key, index / 4, any);
  } else if constexpr (kCount == 2) {
    *reinterpret_cast<uint32_t*>(to) = RoundElement(values[0], key, index) |
                                       uint32_t{RoundElement(values[1], key, index + 1)} << 16;
  } else {
    *to = RoundElement(values[0], key, index);
  }
}

// For host code that checks parameters.
template <class Params>
bool KnowsPositions(const Params& p) {
  return p.state.dtype == DType::kFloat32 || p.positions != nullptr;
}
template <class Params>
bool TakesCheckpoints(const Params& p) {
  return p.checkpoint_state.data != nullptr && p.checkpoint_t != nullptr &&
         p.checkpoint_state.dtype == p.state.dtype;
}

// 16 bytes of a state, as many elements as that are.
template <class S>
inline constexpr int kStateEach = static_cast<int>(16 / sizeof(S));

__device__ inline void UnpackState(const uint4& pack, float (&out)[4]) {
  out[0] = __uint_as_float(pack.x), out[1] = __uint_as_float(pack.y);
  out[2] = __uint_as_float(pack.z), out[3] = __uint_as_float(pack.w);
}
__device__ inline void UnpackState(const uint4& pack, float (&out)[8]) {
  const uint32_t words[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
  }
}
// `any`: see RoundFour.
__device__ inline uint4 PackState(const float (&v)[4], uint32_t, uint32_t, float) {
  return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                    __float_as_uint(v[3]));
}
__device__ inline uint4 PackState(const float (&v)[8], uint32_t key, uint32_t index, float any) {
  const uint2 low = RoundFour(v, key, index / 4, any);
  const uint2 high = RoundFour(v + 4, key, index / 4 + 1, any);
  return make_uint4(low.x, low.y, high.x, high.y);
}

}  // namespace anabranch::kernels::cuda
