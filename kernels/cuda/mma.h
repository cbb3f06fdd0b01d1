// Tensor core products of 16 x 8 x 16 in bfloat16 with sums in float32 (Mma of ptx.h), and what
// stands around them. Only .cu files include it.
//
// Of a product lane l has, with g = l / 4 and t = l % 4: of A [16, 16] rows g and g + 8, columns
// 2t, 2t + 1 (a0, a1) and 2t + 8, 2t + 9 (a2, a3); of B [16, 8] column g, the same k (b0, b1); of C
// [16, 8] rows g (c0, c1) and g + 8 (c2, c3), columns 2t and 2t + 1.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/activations.h"
#include "kernels/cuda/ptx.h"

namespace anabranch::kernels::cuda {

__device__ inline uint32_t PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Two neighbouring elements from an even index.
__device__ inline void StorePair(const Acts& y, int64_t at, float first, float second) {
  if (y.dtype == DType::kFloat32) {
    *reinterpret_cast<float2*>(static_cast<float*>(y.data) + at) = make_float2(first, second);
  } else {
    *reinterpret_cast<uint32_t*>(static_cast<__nv_bfloat16*>(y.data) + at) =
        PackPair(first, second);
  }
}

}  // namespace anabranch::kernels::cuda
