// A head's S, in the accumulators of a block of States, into the 8 bits of the compact codec: what
// EncodeHeadsKernel of state_codec.cu makes of it, while it is on the multiprocessor. Only .cu
// files include it.
//
// A column of the head gets a power of two, a row a scale (docs/STATE_FORMAT.md), and both follow
// from largest magnitudes: of rows, then of columns where rows have been brought to 1, then of rows
// where columns have been. S goes through shared memory for that, and the passes are short loops: a
// walk comes here once in a while, when none of this code is in the instruction cache, and what is
// unrolled over the accumulators takes longer to fetch than to run (docs/GPU.md).
#pragma once

#include <cfloat>

#include "kernels/cuda/codec_math.h"
#include "kernels/cuda/device.h"
#include "kernels/packed_state.h"

namespace anabranch::kernels::cuda {

// Where the warps of a block of 256 threads put together what they found.
template <int kP, int kN>
struct PackShared {
  static constexpr int kWarps = 8;
  float row_factors[kP];
  uint32_t column_most[2][kN];     // of half of the rows each, as bits
  alignas(16) float inverses[kN];  // of the columns' powers
  alignas(16) float powers[kN];
  double squares[kWarps][2];
};

// The head itself meanwhile; rows apart so that the same columns of 8 rows meet all banks once.
template <int kP, int kN>
struct PackRoom {
  alignas(16) float s[kP][kN + 4];
};

// The larger as bits of what the lanes of the same row hold: 8 rows a warp, four lanes a row.
__device__ inline uint32_t MostOfRow(uint32_t bits) {
  bits = max(bits, __shfl_xor_sync(kAllLanes, bits, 8));
  return max(bits, __shfl_xor_sync(kAllLanes, bits, 16));
}

__device__ inline uint32_t Magnitude(float v) { return __float_as_uint(fabsf(v)); }

// All threads of the block call it, each when it does not use `room` any more. `tiles`: of the
// whole head (column 0). `tensor`: the place's [heads, kP, kN]. When it returns, no thread uses
// `room`.
template <class Tiles, int kP, int kN>
__device__ void PackHead(Tiles& tiles, int32_t heads, int32_t head, char* tensor,
                         PackShared<kP, kN>& shared, PackRoom<kP, kN>& room) {
  static_assert(kP == 8 * PackShared<kP, kN>::kWarps &&
                2 * kN == kWarp * PackShared<kP, kN>::kWarps);
  constexpr int kEach = kN / 4;  // columns of a lane
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp;
  const int row = warp * 8 + thread % 8, from = thread % kWarp / 8 * kEach;
  const PackedPlaces places(heads, kP, kN);
  __syncthreads();
  tiles.ForEach([&room](int at, float a, float b) {
    *reinterpret_cast<float2*>(&room.s[at / kN][at % kN]) = make_float2(a, b);
  });
  __syncthreads();
  const auto* const values = reinterpret_cast<const float4*>(&room.s[row][from]);

  // Of numbers that are not negative the bits compare as the numbers do.
  uint32_t most = 0;
#pragma unroll 2
  for (int i = 0; i < kEach / 4; ++i) {
    const float4 v = values[i];
    most = max(max(max(most, Magnitude(v.x)), max(Magnitude(v.y), Magnitude(v.z))), Magnitude(v.w));
  }
  const float row_most = __uint_as_float(MostOfRow(most));
  bool refused = !isfinite(kHeadroom8 * row_most);
  // Rows below the normal numbers say nothing about columns.
  if (from == 0) shared.row_factors[row] = row_most >= FLT_MIN ? __frcp_rn(row_most) : 0.0f;
  refused = __syncthreads_or(refused) != 0;

  const int column = thread % kN, half = thread / kN;
  most = 0;
#pragma unroll 4
  for (int r = half * (kP / 2); r < (half + 1) * (kP / 2); ++r) {
    most = max(most, __float_as_uint(fabsf(room.s[r][column]) * shared.row_factors[r]));
  }
  shared.column_most[half][column] = most;
  __syncthreads();
  if (thread < kN) {
    const uint32_t bits = max(shared.column_most[0][thread], shared.column_most[1][thread]);
    const int exponent = ColumnExponent(__uint_as_float(bits));
    tensor[int64_t{head} * kN + thread] = static_cast<char>(exponent);
    shared.inverses[thread] = PowerOfTwo(-exponent);
    shared.powers[thread] = PowerOfTwo(exponent);
  }
  __syncthreads();

  const auto* const inverses = reinterpret_cast<const float4*>(&shared.inverses[from]);
  const auto* const powers = reinterpret_cast<const float4*>(&shared.powers[from]);
  most = 0;
#pragma unroll 2
  for (int i = 0; i < kEach / 4; ++i) {
    const float4 v = values[i], by = inverses[i];
    most = max(max(most, __float_as_uint(fabsf(v.x) * by.x)), __float_as_uint(fabsf(v.y) * by.y));
    most = max(max(most, __float_as_uint(fabsf(v.z) * by.z)), __float_as_uint(fabsf(v.w) * by.w));
  }
  const float scale = ScaleFor8(__uint_as_float(MostOfRow(most))), inverse = __frcp_rn(scale);
  if (from == 0) {
    *reinterpret_cast<uint16_t*>(tensor + places.scales + (int64_t{head} * kP + row) * 2) =
        static_cast<uint16_t>(__float_as_uint(scale) >> 16);
  }
  FewSquares squares;
  auto* const codes =
      reinterpret_cast<uint32_t*>(tensor + places.codes + (int64_t{head} * kP + row) * kN + from);
#pragma unroll 2
  for (int i = 0; i < kEach / 4; ++i) {
    const float4 v = values[i], by = inverses[i], power = powers[i];
    const auto code = [&](float value, float times, float unit) {
      const int32_t c = CodeOf(value * times * inverse);
      squares.Add(value, static_cast<float>(c) * (scale * unit));
      return static_cast<uint32_t>(c) & 0xFFu;
    };
    codes[i] = code(v.x, by.x, power.x) | code(v.y, by.y, power.y) << 8 |
               code(v.z, by.z, power.z) << 16 | code(v.w, by.w, power.w) << 24;
  }
  const double off = WarpSum(double{squares.off}), norm = WarpSum(double{squares.norm});
  if (thread % kWarp == 0) shared.squares[warp][0] = off, shared.squares[warp][1] = norm;
  __syncthreads();
  if (thread != 0) return;
  double sums[2] = {};
  for (const auto& of_warp : shared.squares) sums[0] += of_warp[0], sums[1] += of_warp[1];
  PackedMeasure measure;
  measure.off = static_cast<float>(sums[0]), measure.norm = static_cast<float>(sums[1]);
  measure.refused = refused ? 1 : 0;
  reinterpret_cast<PackedMeasure*>(tensor + places.measures)[head] = measure;
}

}  // namespace anabranch::kernels::cuda
