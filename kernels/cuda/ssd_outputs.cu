// The outputs of the chunked scan (ssd_chunked.cu): a block computes y of one chunk for some heads
// of a group. A warp has 16 rows of the chunk: their C as operands and their C B^T as accumulators
// stay in its registers for all heads. Warps with later rows have more to do (columns up to the
// diagonal), so the two of a scheduler are paired.
#include <algorithm>
#include <limits>

#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/ssd_segment.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = kChunkThreads;
constexpr int kWarps = kThreads / kWarp;

template <int kP, int kN>
struct HeadStage {
  Bf16 x[kChunk][kP + 8];
  uint4 before[kP / 16][kN / 16][kWarp];
  alignas(16) float dt[kChunk];
  alignas(16) float sums[kChunk];
};

template <int kP, int kN>
struct OutputsShared {
  Bf16 c[kChunk][kN + 8];
  Bf16 b[kChunk][kN + 8];
  HeadStage<kP, kN> heads[2];
  alignas(16) float factors[kWarps][kChunk];
  Bf16 y[kWarps][16][kP + 8];
};

template <int kP, int kN>
__device__ void LoadHead(const SsdScanParams& p, const Segment& segment, const ChunkRows& chunk,
                         int32_t head, HeadStage<kP, kN>& stage) {
  CopyRows<kP>(p.x, chunk.first, p.x_stride, int64_t{head} * kP, chunk.rows, stage.x);
  const int64_t item = int64_t{blockIdx.x} * p.heads + head;
  CopyArray(segment.before + item * (kP * kN / 8), kP * kN / 8, stage.before);
  CopyArray(segment.dt + item * kChunk, kChunk / 4, stage.dt);
  CopyArray(segment.sums + item * kChunk, kChunk / 4, stage.sums);
}

// A warp's 16 rows, from `row` on, of a chunk.
template <int kP, int kN>
struct RowBlock {
  static constexpr int kColumns = kChunk / 16 - 1;  // of 16, before the diagonal
  int block, row, g, t, lane;
  uint32_t c[kN / 16][4];    // C of the rows
  float cb[kColumns][2][4];  // C B^T before the diagonal block, 16 columns at a time
  float diagonal[2][4];      // its diagonal block
  float y[kP / 8][4];

  __device__ void MultiplyCB(const OutputsShared<kP, kN>& shared) {
#pragma unroll
    for (int k = 0; k < kN / 16; ++k) {
      LoadMatrices(c[k], &shared.c[row + lane % 16][k * 16 + lane / 16 * 8]);
    }
#pragma unroll
    for (int s = 0; s < kColumns; ++s) MultiplyColumns(shared, s, s < block, cb[s]);
    MultiplyColumns(shared, block, true, diagonal);
  }
  // out = C B^T of the rows and columns [16 s, 16 s + 16), or zero.
  __device__ void MultiplyColumns(const OutputsShared<kP, kN>& shared, int s, bool wanted,
                                  float (&out)[2][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[0][i] = out[1][i] = 0;
    if (!wanted) return;
#pragma unroll
    for (int k = 0; k < kN / 16; ++k) {
      uint32_t b[4];
      LoadMatrices(b, &shared.b[s * 16 + lane % 8 + lane / 16 * 8][k * 16 + lane / 8 % 2 * 8]);
      MultiplyAdd(out[0], c[k], b[0], b[1]);
      MultiplyAdd(out[1], c[k], b[2], b[3]);
    }
  }
  // y = C S * factor.
  __device__ void MultiplyState(const HeadStage<kP, kN>& stage, float factor) {
#pragma unroll
    for (int n = 0; n < kP / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) y[n][i] = 0;
    }
#pragma unroll
    for (int k = 0; k < kN / 16; ++k) {
#pragma unroll
      for (int m = 0; m < kP / 16; ++m) {
        const uint4 b = stage.before[m][k][lane];
        MultiplyAdd(y[2 * m], c[k], b.x, b.y);
        MultiplyAdd(y[2 * m + 1], c[k], b.z, b.w);
      }
    }
    Scale(factor, factor);
  }
  __device__ void Scale(float upper, float lower) {
#pragma unroll
    for (int n = 0; n < kP / 8; ++n) {
      y[n][0] *= upper, y[n][1] *= upper;
      y[n][2] *= lower, y[n][3] *= lower;
    }
  }
  // y += a X, where a covers rows [from, from + 16) of x.
  __device__ void MultiplyX(const HeadStage<kP, kN>& stage, const uint32_t (&a)[4], int from) {
#pragma unroll
    for (int m = 0; m < kP / 16; ++m) {
      uint32_t b[4];
      LoadMatricesTransposed(b, &stage.x[from + lane % 16][m * 16 + lane / 16 * 8]);
      MultiplyAdd(y[2 * m], a, b[0], b[1]);
      MultiplyAdd(y[2 * m + 1], a, b[2], b[3]);
    }
  }
  // The columns before the diagonal block, where factors[s] = dt_s exp(base - c_s).
  __device__ void AddBefore(const HeadStage<kP, kN>& stage, const float* factors) {
#pragma unroll
    for (int s = 0; s < kColumns; ++s) {
      if (s >= block) continue;
      const float2 low = *reinterpret_cast<const float2*>(&factors[s * 16 + 2 * t]);
      const float2 high = *reinterpret_cast<const float2*>(&factors[s * 16 + 8 + 2 * t]);
      const uint32_t a[4] = {PackPair(cb[s][0][0] * low.x, cb[s][0][1] * low.y),
                             PackPair(cb[s][0][2] * low.x, cb[s][0][3] * low.y),
                             PackPair(cb[s][1][0] * high.x, cb[s][1][1] * high.y),
                             PackPair(cb[s][1][2] * high.x, cb[s][1][3] * high.y)};
      MultiplyX(stage, a, s * 16);
    }
  }
  // The diagonal block.
  __device__ void AddDiagonal(const HeadStage<kP, kN>& stage) {
    float v[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int l = g + i / 2 * 8, s = half * 8 + 2 * t + i % 2;
        const float decay = __expf(stage.sums[row + l] - stage.sums[row + s]);
        v[half][i] = s <= l ? diagonal[half][i] * stage.dt[row + s] * decay : 0.0f;
      }
    }
    const uint32_t a[4] = {PackPair(v[0][0], v[0][1]), PackPair(v[0][2], v[0][3]),
                           PackPair(v[1][0], v[1][1]), PackPair(v[1][2], v[1][3])};
    MultiplyX(stage, a, row);
  }
  // y + d x, through shared memory for stores of 16 bytes.
  __device__ void Store(const SsdScanParams& p, const HeadStage<kP, kN>& stage, int32_t head,
                        const ChunkRows& chunk, Bf16 (*out)[kP + 8]) const {
    const float d = p.d[head];
#pragma unroll
    for (int n = 0; n < kP / 8; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = half * 8 + g, column = n * 8 + 2 * t;
        const uint32_t x = *reinterpret_cast<const uint32_t*>(&stage.x[row + r][column]);
        *reinterpret_cast<uint32_t*>(&out[r][column]) =
            PackPair(fmaf(d, LowOf(x), y[n][2 * half]), fmaf(d, HighOf(x), y[n][2 * half + 1]));
      }
    }
    __syncwarp();
    constexpr int kPieces = kP / 8;
    auto* to = static_cast<Bf16*>(p.y.data) + int64_t{head} * kP;
#pragma unroll
    for (int i = lane; i < 16 * kPieces; i += kWarp) {
      const int r = i / kPieces, piece = i % kPieces;
      if (row + r >= chunk.rows) continue;
      *reinterpret_cast<uint4*>(to + (chunk.first + row + r) * p.y_stride + piece * 8) =
          *reinterpret_cast<const uint4*>(&out[r][piece * 8]);
    }
    __syncwarp();
  }
};

template <int kP, int kN>
__global__ void __launch_bounds__(kThreads, 1)
    Outputs(SsdScanParams p, Segment segment, int32_t heads_each) {
  auto& shared = *static_cast<OutputsShared<kP, kN>*>(DynamicShared());
  const ChunkRows chunk = RowsOf(p.rows, segment, segment.first + static_cast<int>(blockIdx.x));
  if (chunk.rows == 0) return;
  const int32_t in_group = p.heads / p.groups, blocks = (in_group + heads_each - 1) / heads_each;
  const int32_t group = static_cast<int32_t>(blockIdx.y) / blocks;
  const int32_t first = static_cast<int32_t>(blockIdx.y) % blocks * heads_each;
  const int32_t begin = group * in_group + first;
  const int32_t end = group * in_group + min(in_group, first + heads_each);

  CopyRows<kN>(p.c, chunk.first, p.c_stride, int64_t{group} * kN, chunk.rows, shared.c);
  CopyRows<kN>(p.b, chunk.first, p.b_stride, int64_t{group} * kN, chunk.rows, shared.b);
  CommitCopies();
  LoadHead(p, segment, chunk, begin, shared.heads[0]);
  CommitCopies();
  WaitForCopies<1>();
  __syncthreads();

  const int warp = threadIdx.x / kWarp;
  RowBlock<kP, kN> rows;
  rows.lane = threadIdx.x % kWarp, rows.g = rows.lane / 4, rows.t = rows.lane % 4;
  // Warps w and w + 4 share a scheduler: together they have the same work everywhere.
  rows.block = warp < 4 ? warp : 11 - warp;
  rows.row = rows.block * 16;
  const bool live = rows.row < chunk.rows;
  if (live) rows.MultiplyCB(shared);
  for (int32_t head = begin; head < end; ++head) {
    WaitForCopies<0>();
    __syncthreads();  // the head is there, and all are done with the one before
    if (head + 1 < end) LoadHead(p, segment, chunk, head + 1, shared.heads[(head + 1 - begin) % 2]);
    CommitCopies();
    if (!live) continue;
    const HeadStage<kP, kN>& stage = shared.heads[(head - begin) % 2];
    const float base = rows.row == 0 ? 0.0f : stage.sums[rows.row - 1];
    float* factors = shared.factors[warp];
    for (int s = rows.lane; s < rows.row; s += kWarp) {
      factors[s] = stage.dt[s] * __expf(base - stage.sums[s]);
    }
    __syncwarp();
    rows.MultiplyState(stage, __expf(base));
    rows.AddBefore(stage, factors);
    rows.Scale(__expf(stage.sums[rows.row + rows.g] - base),
               __expf(stage.sums[rows.row + rows.g + 8] - base));
    rows.AddDiagonal(stage);
    rows.Store(p, stage, head, chunk, shared.y[warp]);
  }
}

// Heads a block, so that the rounds of blocks that the multiprocessors need take the least time,
// where a block's C B^T costs about one head.
int32_t HeadsEach(int32_t chunks, int32_t in_group, int32_t groups, int multiprocessors) {
  int32_t best = 1;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int32_t each = 1; each <= std::min(in_group, 16); ++each) {
    const int64_t blocks = int64_t{chunks} * groups * CeilDiv(in_group, each);
    const int64_t time = CeilDiv(blocks, multiprocessors) * (each + 1);
    if (time < least) least = time, best = each;
  }
  return best;
}

template <int kP, int kN>
absl::Status Run(const SsdScanParams& p, const Segment& segment, const Launch& launch) {
  const int32_t in_group = p.heads / p.groups;
  const int32_t each = HeadsEach(segment.count, in_group, p.groups, launch.cuda->multiprocessors());
  const dim3 grid(static_cast<unsigned>(segment.count),
                  static_cast<unsigned>(p.groups * CeilDiv(in_group, each)));
  return Start(launch, "SsdScan", Outputs<kP, kN>, grid, kThreads, sizeof(OutputsShared<kP, kN>), p,
               segment, each);
}

}  // namespace

size_t OutputsSharedBytes() {
  return std::max(sizeof(OutputsShared<64, 64>), sizeof(OutputsShared<64, 128>));
}

absl::Status RunOutputs(const SsdScanParams& p, const Segment& segment, const Launch& launch) {
  return p.state_dim == 64 ? Run<64, 64>(p, segment, launch) : Run<64, 128>(p, segment, launch);
}

}  // namespace anabranch::kernels::cuda
