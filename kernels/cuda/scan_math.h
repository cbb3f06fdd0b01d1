// The scalar functions of the recurrences on the device. Exponentials that are multiplied up over
// many tokens (decays) are the accurate ones; a gate's may be off by a few units in the last place.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/ptx.h"
#include "kernels/ssd_scan.h"

namespace anabranch::kernels::cuda {

// x / (1 + e^-x), to a few units in the last place. Very negative x divide by infinity and give -0.
__device__ inline float Silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// log(1 + e^x), and x itself beyond 20, where the two agree in float. NaN stays NaN.
__device__ inline float Softplus(float x) { return x <= 20.0f ? log1pf(expf(x)) : x; }

inline constexpr float kLog2E = 1.44269504088896341f;

// Softplus to a few units in the last place: max(x, 0) + log(1 + e) with e = e^-|x| <= 1, where the
// polynomial is log(1 + e) / e (interpolation at Chebyshev nodes, error 1.6e-7).
__device__ inline float FastSoftplus(float x) {
  const float e = Exp2(-fabsf(x) * kLog2E);
  float q = 0.005126102361828089f;
  q = fmaf(q, e, -0.029074065387248993f);
  q = fmaf(q, e, 0.0775160863995552f);
  q = fmaf(q, e, -0.13602247834205627f);
  q = fmaf(q, e, 0.19076880812644958f);
  q = fmaf(q, e, -0.2483539879322052f);
  q = fmaf(q, e, 0.3331812024116516f);
  q = fmaf(q, e, -0.4999944567680359f);
  q = fmaf(q, e, 0.9999999403953552f);
  return x <= 20.0f ? fmaf(q, e, fmaxf(x, 0.0f)) : x;
}

// One element, whatever its alignment.
__device__ inline float LoadOne(const ConstActs& acts, int64_t at) {
  float v[1];
  LoadActs<1>(acts.data, acts.dtype, at, v);
  return v[0];
}
__device__ inline float LoadOne(const Acts& acts, int64_t at) {
  float v[1];
  LoadActs<1>(acts.data, acts.dtype, at, v);
  return v[0];
}
__device__ inline void StoreOne(const Acts& acts, int64_t at, float value) {
  const float v[1] = {value};
  StoreActs<1>(acts.data, acts.dtype, at, v);
}

// The elements from `at` on of an array. kHalf: it is known to be bfloat16, so that an element
// costs a load at a constant offset and nothing else.
template <bool kHalf>
struct RowActs {
  const void* data;
  DType dtype;

  __device__ RowActs(const ConstActs& acts, int64_t at)
      : data(kHalf || acts.dtype == DType::kBFloat16
                 ? static_cast<const void*>(static_cast<const Bf16*>(acts.data) + at)
                 : static_cast<const void*>(static_cast<const float*>(acts.data) + at)),
        dtype(kHalf ? DType::kBFloat16 : acts.dtype) {}
  __device__ float operator[](int i) const {
    if constexpr (kHalf) {
      return Widen(static_cast<const Bf16*>(data)[i]);
    } else {
      return LoadOne(ConstActs(data, dtype), i);
    }
  }
};

// dt of a row and head: after bias, softplus and limits.
__device__ inline float StepSize(const SsdScanParams& p, int64_t row, int32_t head) {
  const float dt = Softplus(LoadOne(p.dt, row * p.dt_stride + head) + p.dt_bias[head]);
  return isnan(dt) ? dt : fminf(fmaxf(dt, p.dt_lo), p.dt_hi);
}

// Four elements; TakesFours of the array and its stride must hold, and `at` be a multiple of 4.
__device__ inline void LoadFour(const ConstActs& acts, int64_t at, float (&out)[4]) {
  if (acts.dtype == DType::kFloat32) {
    LoadWide<4>(static_cast<const float*>(acts.data) + at, out);
  } else {
    const auto pack =
        *reinterpret_cast<const Pack<Bf16, 4>*>(static_cast<const Bf16*>(acts.data) + at);
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = Widen(pack.v[i]);
  }
}
// A multiple of four elements, under the same conditions.
template <int kCount>
__device__ inline void LoadFours(const ConstActs& acts, int64_t at, float (&out)[kCount]) {
  static_assert(kCount % 4 == 0);
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    float four[4];
    LoadFour(acts, at + i, four);
#pragma unroll
    for (int j = 0; j < 4; ++j) out[i + j] = four[j];
  }
}
// Whether rows of the array can be read in fours.
inline bool TakesFours(const ConstActs& acts, int64_t stride) {
  return reinterpret_cast<uintptr_t>(acts.data) % (4 * ElementBytes(acts.dtype)) == 0 &&
         stride % 4 == 0;
}

}  // namespace anabranch::kernels::cuda
