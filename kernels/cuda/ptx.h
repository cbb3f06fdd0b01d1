// What CUDA C++ cannot say, or says only to nvcc: PTX instructions, the dynamic shared memory and
// the start of a kernel. All of it is here, so that tests/emulation can put something else in its
// place. Only .cu files include it.
#pragma once

#ifndef ANABRANCH_EMULATED

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace anabranch::kernels::cuda {

// The dynamic shared memory of a block, aligned for anything.
__device__ inline void* DynamicShared() {
  extern __shared__ __align__(1024) unsigned char shared[];
  return shared;
}

// start.h says when kernels call these two.
__device__ inline void LetNextStart() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void WaitForInputs() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <class... Params>
cudaError_t StartKernel(const cudaLaunchConfig_t& config, void (*kernel)(Params...),
                        std::type_identity_t<Params>... args) {
  void* pointers[] = {&args...};
  return cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers);
}

// 2^x to 2 units in the last place, results below the normal range as 0: one instruction.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// max(a, |b|), NaN if one of them is.
__device__ inline float MaxMagnitude(float a, float b) {
  float most;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(a), "f"(fabsf(b)));
  return most;
}

// What was loaded into the registers has come when the threads go on from here.
__device__ inline void LoadedHere(float& a, float& b) { asm volatile("" : "+f"(a), "+f"(b)); }

// A product of 16 x 8 x 16 on the tensor cores; mma.h says which elements a lane has.
__device__ inline void Mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                           uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit elements from shared memory. Lanes 8i .. 8i + 7 hold the addresses
// of matrix i's rows; in register i lane l gets columns 2t, 2t + 1 of row g (transposed: rows 2t,
// 2t + 1 of column g), where g = l / 4 and t = l % 4.
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

}  // namespace anabranch::kernels::cuda

#endif  // ANABRANCH_EMULATED
