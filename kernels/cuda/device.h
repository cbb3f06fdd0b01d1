// What the device code of several kernels shares: widening loads and narrowing stores of
// activations, sums over a warp, finding a row's sequence. Only .cu files include it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/check.h"
#include "kernels/cuda/context.h"
#include "kernels/launch.h"

namespace anabranch::kernels::cuda {

using Bf16 = __nv_bfloat16;

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;
// Elements a thread takes at once where everything is aligned: 16 bytes of bfloat16.
inline constexpr int kVector = 8;

// For host code that chooses the vector path.
inline bool IsAligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }
inline bool TakesVectors(const void* data, int64_t stride) {
  return IsAligned(data) && stride % kVector == 0;
}
__host__ __device__ inline int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A launch on a device; arithmetic in bfloat16 steps is what the CPU does for comparison.
inline absl::Status CheckLaunch(const Launch& launch, bool round_to_bf16, const char* kernel) {
  if (launch.cuda == nullptr) return Require(false, kernel, "no CUDA context");
  return Require(!round_to_bf16, kernel, "round_to_bf16 is not implemented on CUDA");
}

// To float32, in which all arithmetic is, and back to what memory holds (to nearest, ties to even).
__device__ inline float Widen(float v) { return v; }
__device__ inline float Widen(Bf16 v) { return __bfloat162float(v); }
__device__ inline void Narrow(float v, float* out) { *out = v; }
__device__ inline void Narrow(float v, Bf16* out) { *out = __float2bfloat16_rn(v); }

// Elements that move as one: a thread's load or store of up to 16 bytes. Its address must be a
// multiple of its size.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T v[kCount];
};

// kCount elements as they lie in memory: loads that are under way before any of them is used.
// 16 bytes at a time where kCount is kVector, which the address must then be aligned to.
template <class T, int kCount>
struct Raw {
  static constexpr int kEach = kCount == 1 ? 1 : static_cast<int>(16 / sizeof(T));
  static_assert(kCount % kEach == 0);
  Pack<T, kEach> packs[kCount / kEach];

  __device__ void Load(const T* from) {
#pragma unroll
    for (int i = 0; i < kCount / kEach; ++i) {
      packs[i] = *reinterpret_cast<const Pack<T, kEach>*>(from + i * kEach);
    }
  }
  __device__ void WidenTo(float (&out)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) out[i] = Widen(packs[i / kEach].v[i % kEach]);
  }
};

// out = the kCount elements at `from`, under the same condition.
template <int kCount, class T>
__device__ inline void LoadWide(const T* from, float (&out)[kCount]) {
  Raw<T, kCount> raw;
  raw.Load(from);
  raw.WidenTo(out);
}
template <int kCount, class T>
__device__ inline void StoreNarrow(const float (&values)[kCount], T* to) {
  constexpr int kEach = kCount == 1 ? 1 : static_cast<int>(16 / sizeof(T));
#pragma unroll
  for (int i = 0; i < kCount; i += kEach) {
    Pack<T, kEach> pack;
#pragma unroll
    for (int j = 0; j < kEach; ++j) Narrow(values[i + j], &pack.v[j]);
    *reinterpret_cast<Pack<T, kEach>*>(to + i) = pack;
  }
}

// The same where the dtype is known at run time: a branch that all threads take alike costs nothing
// beside memory, and keeps kernels from being compiled once per mixture of dtypes.
template <int kCount>
__device__ inline void LoadActs(const void* data, DType dtype, int64_t at, float (&out)[kCount]) {
  if (dtype == DType::kFloat32) {
    LoadWide(static_cast<const float*>(data) + at, out);
  } else {
    LoadWide(static_cast<const Bf16*>(data) + at, out);
  }
}
template <int kCount>
__device__ inline void StoreActs(void* data, DType dtype, int64_t at,
                                 const float (&values)[kCount]) {
  if (dtype == DType::kFloat32) {
    StoreNarrow(values, static_cast<float*>(data) + at);
  } else {
    StoreNarrow(values, static_cast<Bf16*>(data) + at);
  }
}

// All lanes get the result.
template <class T>
__device__ inline T WarpSum(T v) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) v += __shfl_xor_sync(kAllLanes, v, step);
  return v;
}
__device__ inline float WarpMax(float v) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, step));
  }
  return v;
}

// Of kCount values of each of kLanes neighbouring lanes, to lane i the sum of the (i % kCount)-th:
// kCount - 1 shuffles and one for each doubling of the lanes. Where kCount is kLanes, sums are
// formed as by a butterfly over one value, so they have its bits.
template <int kCount, int kLanes>
__device__ inline float SumOverLanes(float (&values)[kCount], int lane) {
  static_assert(kCount <= kLanes);
#pragma unroll
  for (int width = kCount / 2; width > 0; width /= 2) {
    const bool upper = (lane & width) != 0;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float send = upper ? values[i] : values[i + width];
      const float keep = upper ? values[i + width] : values[i];
      values[i] = keep + __shfl_xor_sync(kAllLanes, send, width);
    }
  }
#pragma unroll
  for (int step = kCount; step < kLanes; step *= 2) {
    values[0] += __shfl_xor_sync(kAllLanes, values[0], step);
  }
  return values[0];
}

// The sequence that owns `row`: the last i with row_start[i] <= row.
__device__ inline int32_t SequenceOf(const int32_t* row_start, int32_t num_seqs, int64_t row) {
  int32_t low = 0, high = num_seqs;
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (row_start[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace anabranch::kernels::cuda
