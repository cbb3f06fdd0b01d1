// What nvcc gives device code, for a compiler of the host: keywords, built-in variables and the
// intrinsic functions that the kernels use.
#pragma once

#define __host__
#define __device__
#define __global__
#define __shared__
#define __DEVICE_LAUNCH_PARAMETERS_H__  // its variables are constant: emulator.h has others
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#undef __shared__
#undef __launch_bounds__
#define __shared__ static
#define __launch_bounds__(...)

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <type_traits>

#include "tests/emulation/emulator.h"

inline void __syncthreads() { anabranch::emulation::WaitForBlock(); }
inline void __syncwarp(unsigned = ~0u) { anabranch::emulation::WaitForWarp(); }
inline int __syncthreads_or(int value) {
  return anabranch::emulation::CountOfBlock(value != 0) != 0;
}
inline int __syncthreads_and(int value) {
  return anabranch::emulation::CountOfBlock(value == 0) == 0;
}

// The kernels pass the whole warp as the mask, and no width.
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return anabranch::emulation::FromLane(value, lane % anabranch::emulation::kLanes);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return anabranch::emulation::FromLane(value, anabranch::emulation::Lane() ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int by) {
  const int lane = anabranch::emulation::Lane();
  return anabranch::emulation::FromLane(value, lane < by ? lane : lane - by);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int by) {
  const int lane = anabranch::emulation::Lane(), from = lane + by;
  return anabranch::emulation::FromLane(value, from < anabranch::emulation::kLanes ? from : lane);
}
inline unsigned __ballot_sync(unsigned, int value) {
  unsigned votes = 0;
  for (int lane = 0; lane < anabranch::emulation::kLanes; ++lane) {
    votes |= unsigned{anabranch::emulation::FromLane(value, lane) != 0} << lane;
  }
  return votes;
}

inline uint32_t __float_as_uint(float v) { return std::bit_cast<uint32_t>(v); }
inline float __uint_as_float(uint32_t v) { return std::bit_cast<float>(v); }
inline int __popc(uint32_t v) { return std::popcount(v); }
inline int __clz(uint32_t v) { return std::countl_zero(v); }
inline int __ffs(uint32_t v) { return v == 0 ? 0 : std::countr_zero(v) + 1; }
// The bytes of a, the lowest first, and then those of b, by the digits of `select`.
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t select) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    out |= static_cast<uint32_t>(bytes >> 8 * (select >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return out;
}

inline float __expf(float v) { return std::exp(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline float __frcp_rn(float v) { return 1 / v; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline int __float2int_rn(float v) { return static_cast<int>(std::nearbyint(v)); }
inline int __double2int_ru(double v) { return static_cast<int>(std::ceil(v)); }
inline float normcdff(float v) {
  return static_cast<float>(std::erfc(double{v} * -std::numbers::sqrt2 / 2) / 2);
}
inline void sincosf(float v, float* sine, float* cosine) {
  *sine = std::sin(v), *cosine = std::cos(v);
}

using std::isfinite;
using std::isnan;
template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using Common = std::common_type_t<A, B>;
  return static_cast<Common>(b) < static_cast<Common>(a) ? b : a;
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using Common = std::common_type_t<A, B>;
  return static_cast<Common>(a) < static_cast<Common>(b) ? b : a;
}

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at = before + value;
  return before;
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at = std::max(before, value);
  return before;
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  const T before = *at;
  *at = std::min(before, value);
  return before;
}
