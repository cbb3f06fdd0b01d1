// A head of Mamba-2, 64 x 128 float32, in the 8 bits of the compact codec. A block of kHeadThreads
// holds all of it in registers: a warp has every eighth row, a lane four neighbouring columns. Only
// .cu files include it.
#pragma once

#include <cfloat>

#include "kernels/cuda/codec_math.h"
#include "kernels/cuda/device.h"

namespace anabranch::kernels::cuda {

// A head, and the threads of a block that holds it.
inline constexpr int kHeadRows = 64, kHeadColumns = 128, kHeadThreads = 256;

// Where the warps put together what they found.
struct HeadShared {
  static constexpr int kWarps = kHeadThreads / kWarp;
  uint32_t largest[kWarps][kHeadColumns];    // of a column in a warp's rows, as bits
  alignas(16) float inverses[kHeadColumns];  // of the columns' powers of two
};

// Where its stored form goes (docs/STATE_FORMAT.md): 4-byte aligned but for the scales.
struct HeadPlaces {
  int8_t* exponents;  // [kHeadColumns]
  char* scales;       // [kHeadRows], two bytes each
  int8_t* codes;      // [kHeadRows, kHeadColumns]
};

// What a thread has seen: sums of squares, and whether one of its rows cannot be coded.
struct HeadMeasure {
  double off = 0, norm = 0;
  bool refused = false;
};

// As bits, so that a NaN counts as larger than everything.
__device__ inline uint32_t WarpMaxBits(uint32_t v) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    v = max(v, __shfl_xor_sync(kAllLanes, v, step));
  }
  return v;
}

// All threads of the block call it, and not again before a barrier. Each value is read once. The
// scales of columns follow from rows brought to 1, those of rows from columns brought to at most 1.
__device__ inline HeadMeasure EncodeHead(const float* values, const HeadPlaces& out,
                                         HeadShared& shared) {
  static_assert(kHeadColumns == 4 * kWarp);
  constexpr int kWarps = HeadShared::kWarps, kOwnRows = kHeadRows / kWarps;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  HeadMeasure measure;
  float v[kOwnRows][4];
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    const int row = i * kWarps + warp;
    const float4 four = reinterpret_cast<const float4*>(values + row * kHeadColumns)[lane];
    v[i][0] = four.x, v[i][1] = four.y, v[i][2] = four.z, v[i][3] = four.w;
  }
  uint32_t column[4] = {};
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    uint32_t bits = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) bits = max(bits, __float_as_uint(fabsf(v[i][j])));
    const float most = __uint_as_float(WarpMaxBits(bits));
    measure.refused = measure.refused || !isfinite(kHeadroom8 * most);
    // Rows below the normal numbers say nothing about columns.
    if (!(most >= FLT_MIN)) continue;
    const float factor = __frcp_rn(most);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      column[j] = max(column[j], __float_as_uint(fabsf(v[i][j]) * factor));
    }
  }
  *reinterpret_cast<uint4*>(&shared.largest[warp][lane * 4]) =
      make_uint4(column[0], column[1], column[2], column[3]);
  __syncthreads();
  if (threadIdx.x < kHeadColumns) {
    uint32_t bits = 0;
    for (int w = 0; w < kWarps; ++w) bits = max(bits, shared.largest[w][threadIdx.x]);
    const int exponent = ColumnExponent(__uint_as_float(bits));
    out.exponents[threadIdx.x] = static_cast<int8_t>(exponent);
    shared.inverses[threadIdx.x] = PowerOfTwo(-exponent);
  }
  __syncthreads();
  const float4 four = reinterpret_cast<const float4*>(shared.inverses)[lane];
  const float by[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
  for (int i = 0; i < kOwnRows; ++i) {
    const int row = i * kWarps + warp;
    uint32_t bits = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) bits = max(bits, __float_as_uint(fabsf(v[i][j]) * by[j]));
    const float scale = ScaleFor8(__uint_as_float(WarpMaxBits(bits)));
    const float inverse = __frcp_rn(scale);
    if (lane < 2) {
      out.scales[row * 2 + lane] = static_cast<char>(__float_as_uint(scale) >> (16 + 8 * lane));
    }
    uint32_t packed = 0;
    FewSquares squares;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int32_t code = CodeOf(v[i][j] * by[j] * inverse);
      packed |= (static_cast<uint32_t>(code) & 0xFFu) << (8 * j);
      squares.Add(v[i][j], static_cast<float>(code) * (scale * __frcp_rn(by[j])));
    }
    measure.off += squares.off;
    measure.norm += squares.norm;
    reinterpret_cast<uint32_t*>(out.codes + row * kHeadColumns)[lane] = packed;
  }
  return measure;
}

}  // namespace anabranch::kernels::cuda
