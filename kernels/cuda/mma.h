// Tensor core products of 16 x 8 x 16 in bfloat16 with sums in float32, and the loads around them.
// Only .cu files include it.
//
// Of a product lane l has, with g = l / 4 and t = l % 4: of A [16, 16] rows g and g + 8, columns
// 2t, 2t + 1 (a0, a1) and 2t + 8, 2t + 9 (a2, a3); of B [16, 8] column g, the same k (b0, b1); of C
// [16, 8] rows g (c0, c1) and g + 8 (c2, c3), columns 2t and 2t + 1.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/activations.h"

namespace anabranch::kernels::cuda {

__device__ inline void Mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                           uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit elements from shared memory. Lanes 8i .. 8i + 7 hold the addresses
// of matrix i's rows; in register i lane l gets columns 2t, 2t + 1 of row g (transposed: rows 2t,
// 2t + 1 of column g).
__device__ inline void LoadMatrices(uint32_t (&r)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
__device__ inline void LoadMatricesTransposed(uint32_t (&r)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}

// 16 bytes from global to shared memory behind the back of the thread; zeros unless `inside`.
__device__ inline void CopyAsync(void* to, const void* from, bool inside) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(at), "l"(from), "r"(bytes)
               : "memory");
}
__device__ inline void CopyAsync(void* to, const void* from) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(at), "l"(from) : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most kPending of the groups committed last are on their way.
template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

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
