// Recurrent states on their way between memory, where they are float32, bfloat16 or int8, and
// registers, one or a few elements at a time; state_vector.h is for 16 bytes. Only .cu files
// include it.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/int8_math.h"
#include "kernels/cuda/scan_math.h"
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

// kCount neighbours from `index` of the sequence's tensor on, at `at` of the array, of a state that
// is not int8. kCount is 1, 2 or 4; `index` a multiple of it, `at` aligned for it.
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

// Element `index` of the slot that begins at element `slot`. kInt8: whether the state is int8; what
// that takes in registers other states should not pay for.
template <bool kInt8, class Params>
__device__ inline float LoadStateOne(const Params& p, int64_t slot, int64_t index) {
  if constexpr (!kInt8) return LoadOne(p.state, slot + index);
  const uint16_t scale = Int8Scales(p.state, slot, p.state_scales)[index / kInt8Group];
  return static_cast<const int8_t*>(p.state.data)[slot + index] * Int8ScaleValue(scale);
}

// kCount neighbours of which kLanes lanes together have a group, to a state in int8. All lanes of
// the warp call it; those that are not `live` store nothing.
template <int kCount, int kLanes, class Params>
__device__ inline void StoreInt8(const Params& p, const Acts& to, int64_t slot, int64_t index,
                                 uint32_t key, bool live, const float (&values)[kCount]) {
  static_assert(4 % kCount == 0);  // so that one hash has the noise of all
  const Int8Scaling scaling = Int8ScalingOf<kLanes>(values);
  if (!live) return;
  auto* const codes = static_cast<int8_t*>(to.data) + slot + index;
  const uint32_t noise = RoundingBits(key, static_cast<uint32_t>(index / 4));
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const auto shift = static_cast<int>(8 * ((index + i) % 4));
    codes[i] = RoundInt8One(values[i], scaling.inverse, noise >> shift & 0xffu);
  }
  if (index % kInt8Group != 0) return;
  Int8Scales(to, slot, p.state_scales)[index / kInt8Group] = scaling.scale;
}

// A row that kLanes lanes hold in fours: lane l the elements 4 (l + kLanes q) to + 3 for all q.
// Four lanes have a group.
template <int kLanes, int kStates, class Params>
__device__ inline void StoreInt8Row(const Params& p, const Acts& to, int64_t slot, int64_t row,
                                    int lane, uint32_t key, bool live,
                                    const float (&values)[kStates]) {
#pragma unroll
  for (int i = 0; i < kStates; i += 4) {
    const int n = 4 * (lane + kLanes * (i / 4));
    const float four[4] = {values[i], values[i + 1], values[i + 2], values[i + 3]};
    StoreInt8<4, 4>(p, to, slot, row + n, key, live && n < p.state_dim, four);
  }
}

// For host code that checks parameters.
template <class Params>
bool KnowsPositions(const Params& p) {
  return (p.state.dtype == DType::kFloat32 || p.positions != nullptr) && HasScales(p);
}
template <class Params>
bool TakesCheckpoints(const Params& p) {
  return p.checkpoint_state.data != nullptr && p.checkpoint_t != nullptr &&
         p.checkpoint_state.dtype == p.state.dtype;
}

}  // namespace anabranch::kernels::cuda
