// Pointers to activations: what flows between kernels, row by row. The CPU kernels keep it in
// float32; on CUDA a bfloat16 model keeps it in bfloat16, which halves the bytes that everything
// around the matrix products moves. The dtype travels with the pointer. CPU kernels take what they
// are given for plain arrays of floats, which is all that the CPU's forward pass makes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace anabranch::kernels {

// kInt8: only of recurrent states, whose elements share scales (kernels/int8_state.h).
enum class DType : uint8_t { kFloat32 = 0, kBFloat16 = 1, kInt8 = 2 };

constexpr int64_t ElementBytes(DType dtype) {
  return dtype == DType::kFloat32 ? 4 : dtype == DType::kBFloat16 ? 2 : 1;
}

// To be read. Converts from and to a plain array of floats; arithmetic is in elements.
struct ConstActs {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;

  ConstActs() = default;
  ConstActs(std::nullptr_t) {}                      // NOLINT: null is no activations
  ConstActs(const float* floats) : data(floats) {}  // NOLINT: as the class comment says
  constexpr ConstActs(const void* at, DType type) : data(at), dtype(type) {}
  operator const float*() const { return static_cast<const float*>(data); }  // NOLINT: the same
  ConstActs operator+(int64_t elements) const {
    return {static_cast<const char*>(data) + elements * ElementBytes(dtype), dtype};
  }
};

// To be written, or both.
struct Acts {
  void* data = nullptr;
  DType dtype = DType::kFloat32;

  Acts() = default;
  Acts(std::nullptr_t) {}                // NOLINT: as above
  Acts(float* floats) : data(floats) {}  // NOLINT: as above
  Acts(void* at, DType type) : data(at), dtype(type) {}
  operator float*() const { return static_cast<float*>(data); }   // NOLINT: as above
  constexpr operator ConstActs() const { return {data, dtype}; }  // NOLINT: writable is readable
  Acts operator+(int64_t elements) const {
    return {static_cast<char*>(data) + elements * ElementBytes(dtype), dtype};
  }
};

}  // namespace anabranch::kernels
