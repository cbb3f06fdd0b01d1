// Stands in for kernels/cuda/ptx.h, which says what each function is. Forced into every emulated
// source before its first line.
#pragma once

#define ANABRANCH_EMULATED

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/emulation/device_builtins.h"

namespace anabranch::kernels::cuda {

inline void* DynamicShared() { return emulation::SharedMemory(); }
inline void LetNextStart() {}
inline void WaitForInputs() {}

template <class... Params>
cudaError_t StartKernel(const cudaLaunchConfig_t& config, void (*kernel)(Params...),
                        std::type_identity_t<Params>... args) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  const cudaError_t refused = emulation::CheckStart(function, config.dynamicSmemBytes);
  if (refused != cudaSuccess) return refused;
  emulation::RunGrid(config.gridDim, config.blockDim, config.dynamicSmemBytes,
                     [&] { kernel(args...); });
  return cudaSuccess;
}

inline float Exp2(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}
inline float MaxMagnitude(float a, float b) {
  return std::isnan(a) || std::isnan(b) ? NAN : std::fmax(a, std::fabs(b));
}
template <class... T>
void LoadedHere(T&...) {}

// A lane's part of the operands.
struct MmaOperands {
  uint32_t a[4], b[2];
};
inline float HalfOf(uint32_t pair, int which) {
  return __uint_as_float(which == 0 ? pair << 16 : pair & 0xffff0000u);
}
inline void Mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                uint32_t b1) {
  const MmaOperands mine = {{a0, a1, a2, a3}, {b0, b1}};
  std::memcpy(emulation::LaneBuffer(emulation::Lane()), &mine, sizeof(mine));
  emulation::WaitForWarp();
  const auto of = [](int g, int k) {  // whose a lies in row g, whose b in column g
    MmaOperands lane;
    std::memcpy(&lane, emulation::LaneBuffer(4 * (g % 8) + k % 8 / 2), sizeof(lane));
    return lane;
  };
  const int g = emulation::Lane() / 4, t = emulation::Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + i / 2 * 8, column = 2 * t + i % 2;
    float sum = 0;
    for (int k = 0; k < 16; ++k) {
      sum +=
          HalfOf(of(row, k).a[row / 8 + k / 8 * 2], k % 2) * HalfOf(of(column, k).b[k / 8], k % 2);
    }
    c[i] += sum;
  }
  emulation::WaitForWarp();
}

inline void LoadRows(uint32_t (&r)[4], const void* row, bool transposed) {
  const int g = emulation::Lane() / 4, t = emulation::Lane() % 4;
  for (int i = 0; i < 4; ++i) {
    uint32_t halves[2];
    for (int k = 0; k < 2; ++k) {
      const int of_row = transposed ? 2 * t + k : g, column = transposed ? g : 2 * t + k;
      // Lanes read rows of their own choice: all of them have to be passed to each.
      const auto* at = static_cast<const uint16_t*>(emulation::FromLane(row, 8 * i + of_row));
      halves[k] = at[column];
    }
    r[i] = halves[0] | halves[1] << 16;
  }
}
inline void LoadMatrices(uint32_t (&r)[4], const void* row) { LoadRows(r, row, false); }
inline void LoadMatricesTransposed(uint32_t (&r)[4], const void* row) { LoadRows(r, row, true); }

inline void CopyAsync(void* to, const void* from, bool inside) {
  inside ? std::memcpy(to, from, 16) : std::memset(to, 0, 16);
}
inline void CopyAsync(void* to, const void* from) { std::memcpy(to, from, 16); }
inline void CommitCopies() {}
template <int kPending>
void WaitForCopies() {}

}  // namespace anabranch::kernels::cuda
