// A head's S, in the accumulators of a block of States, into the 8 bits of the compact codec: what
// EncodeHeadsKernel of state_codec.cu makes of it, while it is in registers. Only .cu files include
// it.
//
// A column of the head gets a power of two, a row a scale (docs/STATE_FORMAT.md), and both follow
// from largest magnitudes: of rows, then of columns where rows have been brought to 1, then of rows
// where columns have been. Each is found by the lanes that share a row or column, then by the
// warps, through shared memory and a barrier. Codes go through shared memory, too, so that they
// leave in pieces of 16 bytes.
#pragma once

#include <cfloat>

#include "kernels/cuda/codec_math.h"
#include "kernels/cuda/device.h"
#include "kernels/packed_state.h"

namespace anabranch::kernels::cuda {

// Where the warps of a block of 2 x 4 (rows x columns of warps) put together what they found.
template <int kP, int kN>
struct PackShared {
  static constexpr int kDown = 2, kAcross = 4;
  uint32_t row_most[kAcross][kP];   // as bits
  uint32_t column_most[kDown][kN];  // the same
  alignas(16) float inverses[kN];   // of the columns' powers
  double squares[kDown * kAcross][2];
  alignas(16) int8_t codes[kP][kN + 16];  // rows apart, so that 8 of them meet all banks once
};

// The largest of the bits of the lanes that differ in the bits of `lanes`.
__device__ inline uint32_t MostOf(uint32_t bits, int lanes) {
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    if ((lanes & step) != 0) bits = max(bits, __shfl_xor_sync(kAllLanes, bits, step));
  }
  return bits;
}

// All threads of the block call it. `tiles`: of the whole head (column 0). `tensor`: the place's
// [heads, kP, kN].
template <class Tiles, int kP, int kN>
__device__ void PackHead(const Tiles& tiles, int32_t heads, int32_t head, char* tensor,
                         PackShared<kP, kN>& shared) {
  constexpr int kM = Tiles::kM, kT = Tiles::kT, kRowLanes = 3, kColumnLanes = 28;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, down = warp / PackShared<kP, kN>::kAcross;
  const int across = warp % PackShared<kP, kN>::kAcross;
  const PackedPlaces places(heads, kP, kN);
  // Of a thread: the value at row (m, half), column (n, j).
  const auto value = [&](int m, int half, int n, int j) { return tiles.s[m][n][2 * half + j]; };
  const auto row_of = [&](int m, int half) { return tiles.first_p + m * 16 + half * 8 + tiles.g; };
  const auto column_of = [&](int n) { return tiles.first_n + n * 8 + 2 * tiles.t; };
  const auto each_row = [](auto body) {  // of a thread
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) body(m, half);
    }
  };
  const auto each_column = [](auto body) {
#pragma unroll
    for (int n = 0; n < kT; ++n) {
#pragma unroll
      for (int j = 0; j < 2; ++j) body(n, j);
    }
  };
  // Calls put(m, half, largest magnitude of the row times factor(n, j)); a barrier in it.
  const auto for_rows = [&](auto factor, auto put) {
    each_row([&](int m, int half) {
      uint32_t bits = 0;
      each_column([&](int n, int j) {
        bits = max(bits, __float_as_uint(fabsf(value(m, half, n, j)) * factor(n, j)));
      });
      bits = MostOf(bits, kRowLanes);
      if (tiles.t == 0) shared.row_most[across][row_of(m, half)] = bits;
    });
    __syncthreads();
    each_row([&](int m, int half) {
      uint32_t bits = 0;
#pragma unroll
      for (int a = 0; a < PackShared<kP, kN>::kAcross; ++a) {
        bits = max(bits, shared.row_most[a][row_of(m, half)]);
      }
      put(m, half, __uint_as_float(bits));
    });
  };

  float row_factor[kM][2];
  bool refused = false;
  for_rows([](int, int) { return 1.0f; },
           [&](int m, int half, float most) {
             refused = refused || !isfinite(kHeadroom8 * most);
             // Rows below the normal numbers say nothing about columns.
             row_factor[m][half] = most >= FLT_MIN ? __frcp_rn(most) : 0.0f;
           });
  each_column([&](int n, int j) {
    uint32_t bits = 0;
    each_row([&](int m, int half) {
      // Of numbers that are not negative the bits compare as the numbers do.
      bits = max(bits, __float_as_uint(fabsf(value(m, half, n, j)) * row_factor[m][half]));
    });
    bits = MostOf(bits, kColumnLanes);
    if (tiles.g == 0) shared.column_most[down][column_of(n) + j] = bits;
  });
  refused = __syncthreads_or(refused) != 0;
  if (thread < kN) {
    const uint32_t bits = max(shared.column_most[0][thread], shared.column_most[1][thread]);
    const int exponent = ColumnExponent(__uint_as_float(bits));
    tensor[int64_t{head} * kN + thread] = static_cast<char>(exponent);
    shared.inverses[thread] = PowerOfTwo(-exponent);
  }
  __syncthreads();
  float by[kT][2];
#pragma unroll
  for (int n = 0; n < kT; ++n) {
    const float2 two = *reinterpret_cast<const float2*>(&shared.inverses[column_of(n)]);
    by[n][0] = two.x, by[n][1] = two.y;
  }
  char* const scales = tensor + places.scales + int64_t{head} * kP * 2;
  FewSquares squares;
  for_rows([&](int n, int j) { return by[n][j]; },
           [&](int m, int half, float most) {
             const float scale = ScaleFor8(most), inverse = __frcp_rn(scale);
             const int row = row_of(m, half);
             if (across == 0 && tiles.t == 0) {
               *reinterpret_cast<uint16_t*>(scales + row * 2) =
                   static_cast<uint16_t>(__float_as_uint(scale) >> 16);
             }
#pragma unroll
             for (int n = 0; n < kT; ++n) {
               uint32_t pair = 0;
#pragma unroll
               for (int j = 0; j < 2; ++j) {
                 const float v = value(m, half, n, j);
                 const int32_t code = CodeOf(v * by[n][j] * inverse);
                 pair |= (static_cast<uint32_t>(code) & 0xFFu) << (8 * j);
                 squares.Add(v, static_cast<float>(code) * (scale * __frcp_rn(by[n][j])));
               }
               *reinterpret_cast<uint16_t*>(&shared.codes[row][column_of(n)]) =
                   static_cast<uint16_t>(pair);
             }
           });
  const double off = WarpSum(double{squares.off}), norm = WarpSum(double{squares.norm});
  if (thread % kWarp == 0) shared.squares[warp][0] = off, shared.squares[warp][1] = norm;
  __syncthreads();
  char* const codes = tensor + places.codes + int64_t{head} * kP * kN;
  constexpr int kPieces = kN / 16;
  for (int i = thread; i < kP * kPieces; i += static_cast<int>(blockDim.x)) {
    reinterpret_cast<uint4*>(codes)[i] =
        *reinterpret_cast<const uint4*>(&shared.codes[i / kPieces][i % kPieces * 16]);
  }
  if (thread != 0) return;
  double sums[2] = {};
  for (const auto& of_warp : shared.squares) sums[0] += of_warp[0], sums[1] += of_warp[1];
  PackedMeasure measure;
  measure.off = static_cast<float>(sums[0]), measure.norm = static_cast<float>(sums[1]);
  measure.refused = refused ? 1 : 0;
  reinterpret_cast<PackedMeasure*>(tensor + places.measures)[head] = measure;
}

}  // namespace anabranch::kernels::cuda
