// Recurrent states in vectors of 16 bytes, for kernels that read and write whole rows: four
// elements of float32, eight of bfloat16 or a group of int8 with its scale. A kernel is compiled
// for each, because what a vector takes in registers differs. Only .cu files include it.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/int8_math.h"
#include "kernels/cuda/state_io.h"

namespace anabranch::kernels::cuda {

// Whether slots of a state, or of the ring, can be read 16 bytes at a time.
inline bool TakesStateVectors(const Acts& state, int64_t stride) {
  return IsAligned(state.data) && stride * ElementBytes(state.dtype) % 16 == 0;
}

// Runs f.template operator()<S>() with the type that a state's elements have in memory.
template <class F>
auto WithStateType(DType dtype, F f) {
  if (dtype == DType::kInt8) return f.template operator()<int8_t>();
  return dtype == DType::kFloat32 ? f.template operator()<float>() : f.template operator()<Bf16>();
}

// 16 bytes of a state, as many elements as that are. In int8 that is a group, and its scale goes
// with it.
template <class S>
inline constexpr int kStateEach = static_cast<int>(16 / sizeof(S));
template <class S>
struct StateVector {  // float and bfloat16
  uint4 bits;
};
template <>
struct StateVector<int8_t> {
  uint4 bits;
  uint16_t scale;
};

// Where a thread's vectors lie: its first, and the others a constant number of elements ahead,
// which costs no instruction.
template <class S>
struct StatePlace {
  S* at;

  // Element `index` of the slot (of the ring or the pool) that begins at element `slot`.
  template <class Params>
  __device__ StatePlace(const Params&, const Acts& state, int64_t slot, int64_t index)
      : at(static_cast<S*>(state.data) + slot + index) {}
  __device__ StateVector<S> Load(int64_t ahead) const {
    return {*reinterpret_cast<const uint4*>(at + ahead)};
  }
  __device__ void Store(int64_t ahead, const StateVector<S>& vector) const {
    *reinterpret_cast<uint4*>(at + ahead) = vector.bits;
  }
};
template <>
struct StatePlace<int8_t> {
  int8_t* at;
  uint16_t* scale;

  template <class Params>
  __device__ StatePlace(const Params& p, const Acts& state, int64_t slot, int64_t index)
      : at(static_cast<int8_t*>(state.data) + slot + index),
        scale(Int8Scales(state, slot, p.state_scales) + index / kInt8Group) {}
  __device__ StateVector<int8_t> Load(int64_t ahead) const {
    return {*reinterpret_cast<const uint4*>(at + ahead), *ScaleOf(ahead)};
  }
  __device__ void Store(int64_t ahead, const StateVector<int8_t>& vector) const {
    *reinterpret_cast<uint4*>(at + ahead) = vector.bits;
    *ScaleOf(ahead) = vector.scale;
  }

 private:
  __device__ uint16_t* ScaleOf(int64_t ahead) const {
    return scale + static_cast<uint64_t>(ahead) / kInt8Group;  // not negative
  }
};

// A vector's elements as float32, in which all arithmetic is.
__device__ inline void UnpackState(const StateVector<float>& from, float (&out)[4]) {
  const uint4& pack = from.bits;
  out[0] = __uint_as_float(pack.x), out[1] = __uint_as_float(pack.y);
  out[2] = __uint_as_float(pack.z), out[3] = __uint_as_float(pack.w);
}
__device__ inline void UnpackState(const StateVector<Bf16>& from, float (&out)[8]) {
  const uint32_t words[4] = {from.bits.x, from.bits.y, from.bits.z, from.bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
  }
}
__device__ inline void UnpackState(const StateVector<int8_t>& from, float (&out)[16]) {
  UnpackInt8(from.bits, from.scale, out);
}
// And back, rounded by `key` (RoundingKeyOf): elements from `index` of the sequence's tensor on.
// `any`: see RoundFour.
__device__ inline StateVector<float> PackState(const float (&v)[4], uint32_t, uint32_t, float) {
  return {make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]),
                     __float_as_uint(v[3]))};
}
__device__ inline StateVector<Bf16> PackState(const float (&v)[8], uint32_t key, uint32_t index,
                                              float any) {
  const uint2 low = RoundFour(v, key, index / 4, any);
  const uint2 high = RoundFour(v + 4, key, index / 4 + 1, any);
  return {make_uint4(low.x, low.y, high.x, high.y)};
}
__device__ inline StateVector<int8_t> PackState(const float (&v)[16], uint32_t key, uint32_t index,
                                                float) {
  const Int8Scaling scaling = Int8ScalingOf<1>(v);
  const auto four = [&](int quad) {
    return RoundInt8Four(v + 4 * quad, scaling.inverse, RoundingBits(key, index / 4 + quad));
  };
  return {make_uint4(four(0), four(1), four(2), four(3)), scaling.scale};
}

}  // namespace anabranch::kernels::cuda
