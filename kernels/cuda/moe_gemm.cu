// One launch multiplies the rows of all experts: a block finds its expert and rows from counts that
// lie on the device, so the host never waits for the routing. The grid covers the most tiles that
// the rows can need, one more an expert than their number; blocks beyond the real ones leave.
//
// bfloat16: tensor cores, tiles of 64 columns and 64 rows, or 16 rows where experts get only a few,
// which is decode: then an expert's weights are read once and all that counts is that enough of
// them are on their way (4 stages of 64 k each, 32 KB a block). Anything else: plain tiles in
// float32.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/moe_gemm.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kColumns = 64;

// The rows of a block.
struct RowTile {
  int32_t expert;
  int64_t begin, end;
};

__device__ inline RowTile FindTile(const ExpertGemm& g, int64_t tile) {
  if (tile >= g.tile_start[g.experts]) return {0, 0, 0};
  const int32_t e = SequenceOf(g.tile_start, g.experts, tile);
  const int64_t first = e == 0 ? 0 : g.end[e - 1];
  const int64_t begin = first + (tile - g.tile_start[e]) * g.tile_rows;
  return {e, begin, min(begin + g.tile_rows, static_cast<int64_t>(g.end[e]))};
}

__device__ inline int64_t SourceRow(const ExpertGemm& g, int64_t row) {
  return g.source == nullptr ? row : g.source[row] / g.divisor;
}

constexpr int kMmaThreads = 128;
constexpr int kStepK = 64;
constexpr int kPadded = kStepK + 8;  // so that rows of one column lie in different banks

// kRows x kColumns by four warps: 2 x 2 of them for 64 rows, 1 x 4 for 16.
template <int kRows, int kStages>
struct MmaTile {
  static constexpr int kWarpsDown = kRows == 16 ? 1 : 2, kWarpsAcross = 4 / kWarpsDown;
  static constexpr int kDown = kRows / kWarpsDown / 16;         // products of one warp
  static constexpr int kAcross = kColumns / kWarpsAcross / 16;  // pairs of them

  Bf16 x[kStages][kRows][kPadded];
  Bf16 w[kStages][kColumns][kPadded];

  // Starts loading step `step` of k.
  __device__ void Load(const ExpertGemm& g, const Bf16* matrix, const RowTile& tile, int64_t column,
                       int64_t step) {
    const int stage = static_cast<int>(step % kStages);
    constexpr int kParts = kStepK / kVector;
    for (int i = static_cast<int>(threadIdx.x); i < (kRows + kColumns) * kParts; i += kMmaThreads) {
      const int r = i / kParts, part = i % kParts;
      const int64_t at = step * kStepK + part * kVector;
      if (r < kRows) {
        const int64_t row = tile.begin + r;
        const bool inside = row < tile.end && at < g.k;
        const auto* from = static_cast<const Bf16*>(g.x.data);
        if (inside) from += SourceRow(g, row) * g.x_stride + at;
        CopyAsync(&x[stage][r][part * kVector], from, inside);
      } else {
        const int64_t n = column + r - kRows;
        const bool inside = n < g.n && at < g.k;
        CopyAsync(&w[stage][r - kRows][part * kVector], matrix + (inside ? n * g.k + at : 0),
                  inside);
      }
    }
    CommitCopies();
  }

  __device__ void Multiply(int stage, int row, int column, float (&sum)[kDown][2 * kAcross][4]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int k = 0; k < kStepK; k += 16) {
      uint32_t a[kDown][4], b[kAcross][4];
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        LoadMatrices(a[i], &x[stage][row + i * 16 + lane % 16][k + lane / 16 * 8]);
      }
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        LoadMatrices(b[j],
                     &w[stage][column + j * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
      }
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) {
          Mma(sum[i][2 * j], a[i][0], a[i][1], a[i][2], a[i][3], b[j][0], b[j][1]);
          Mma(sum[i][2 * j + 1], a[i][0], a[i][1], a[i][2], a[i][3], b[j][2], b[j][3]);
        }
      }
    }
  }
};

template <int kRows, int kStages>
__global__ void __launch_bounds__(kMmaThreads)
    MmaKernel(ExpertGemm g, const __grid_constant__ ExpertGemm::Matrices matrices) {
  using Shared = MmaTile<kRows, kStages>;
  __shared__ __align__(16) Shared shared;
  const RowTile tile = FindTile(g, blockIdx.y);
  if (tile.begin >= tile.end) return;
  const auto* matrix = static_cast<const Bf16*>(matrices.of[tile.expert]);
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = warp / Shared::kWarpsAcross * Shared::kDown * 16;
  const int warp_column = warp % Shared::kWarpsAcross * Shared::kAcross * 16;
  float sum[Shared::kDown][2 * Shared::kAcross][4] = {};
  const int64_t steps = CeilDiv(g.k, kStepK);
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    shared.Load(g, matrix, tile, column, i);  // beyond the last step: zeros
  }
  for (int64_t step = 0; step < steps; ++step) {
    WaitForCopies<kStages - 2>();
    __syncthreads();  // also: all are done with the stage that is loaded next
    shared.Load(g, matrix, tile, column, step + kStages - 1);
    shared.Multiply(static_cast<int>(step % kStages), warp_row, warp_column, sum);
  }
  const int group = lane / 4, pair = lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < Shared::kDown; ++i) {
#pragma unroll
    for (int j = 0; j < 2 * Shared::kAcross; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = tile.begin + warp_row + i * 16 + group + half * 8;
        const int64_t n = column + warp_column + j * 8 + pair;
        if (row >= tile.end || n >= g.n) continue;
        StorePair(g.y, row * g.y_stride + n, sum[i][j][2 * half], sum[i][j][2 * half + 1]);
      }
    }
  }
}

constexpr int kPlainThreads = 256;
constexpr int kPlainK = 16;
constexpr int kPlainRows = static_cast<int>(kExpertTile);

__global__ void __launch_bounds__(kPlainThreads)
    PlainKernel(ExpertGemm g, const __grid_constant__ ExpertGemm::Matrices matrices) {
  __shared__ float x[kPlainK][kPlainRows + 1], w[kPlainK][kColumns + 1];
  const RowTile tile = FindTile(g, blockIdx.y);
  if (tile.begin >= tile.end) return;
  const void* matrix = matrices.of[tile.expert];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int tx = static_cast<int>(threadIdx.x) % 16, ty = static_cast<int>(threadIdx.x) / 16;
  float sum[4][4] = {};
  for (int64_t at = 0; at < g.k; at += kPlainK) {
    for (int i = static_cast<int>(threadIdx.x); i < kPlainRows * kPlainK; i += kPlainThreads) {
      const int r = i / kPlainK, c = i % kPlainK;
      float left[1] = {0}, right[1] = {0};
      if (at + c < g.k && tile.begin + r < tile.end) {
        LoadActs(g.x.data, g.x.dtype, SourceRow(g, tile.begin + r) * g.x_stride + at + c, left);
      }
      if (at + c < g.k && column + r < g.n) {
        LoadActs(matrix, g.weights, (column + r) * g.k + at + c, right);
      }
      x[c][r] = left[0];
      w[c][r] = right[0];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPlainK; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          sum[r][c] = fmaf(x[i][ty + 16 * r], w[i][tx + 16 * c], sum[r][c]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 4; ++r) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int64_t row = tile.begin + ty + 16 * r, n = column + tx + 16 * c;
      const float v[1] = {sum[r][c]};
      if (row < tile.end && n < g.n) StoreActs(g.y.data, g.y.dtype, row * g.y_stride + n, v);
    }
  }
}

}  // namespace

absl::Status MultiplyByExpert(const ExpertGemm& g, const ExpertGemm::Matrices& matrices,
                              cudaStream_t stream) {
  static_assert(kPlainRows == kColumns, "one loop loads both tiles");
  const dim3 grid(static_cast<unsigned>(CeilDiv(g.n, kColumns)),
                  static_cast<unsigned>(g.max_tiles));
  const bool tensor_cores =
      g.weights == DType::kBFloat16 && g.x.dtype == DType::kBFloat16 && g.n % kVector == 0 &&
      g.k % kVector == 0 && TakesVectors(g.x.data, g.x_stride) &&
      TakesVectors(g.y.data, g.y_stride) &&
      std::all_of(matrices.of, matrices.of + g.experts, [](const void* m) { return IsAligned(m); });
  if (!tensor_cores) {
    StartOn(stream, PlainKernel, grid, kPlainThreads, 0, g, matrices);
  } else if (g.tile_rows == kSmallExpertTile) {
    StartOn(stream, MmaKernel<kSmallExpertTile, 4>, grid, kMmaThreads, 0, g, matrices);
  } else {
    StartOn(stream, MmaKernel<kExpertTile, 2>, grid, kMmaThreads, 0, g, matrices);
  }
  return LaunchStatus("Experts, product");
}

}  // namespace anabranch::kernels::cuda
