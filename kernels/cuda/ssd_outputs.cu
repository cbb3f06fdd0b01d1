// The outputs of the chunked scan (ssd_chunked.cu): a block computes y of one chunk for some heads
// of a group. A warp has 16 rows of the chunk, whose C B^T stays in its registers, as accumulators,
// for all heads. Warps with later rows have more to do (columns up to the diagonal), so the two of
// a scheduler are paired. What a head takes are chains of products, loads and exponentials, so two
// blocks share a multiprocessor: 128 registers a thread and half of the shared memory each.
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
  using Rows = Bf16[kChunk][kN + 8];
  Rows c;
  HeadStage<kP, kN> heads[2];
  alignas(16) float factors[kWarps][kChunk];

  // B is needed once: it lies where the second head will.
  __device__ Rows& b() { return *reinterpret_cast<Rows*>(&heads[1]); }
  static_assert(sizeof(Rows) <= sizeof(HeadStage<kP, kN>));
};

// Brings head after head of a chunk.
template <int kP, int kN>
class Loader {
 public:
  __device__ Loader(const SsdScanParams& p, const Segment& segment, const ChunkRows& chunk,
                    int32_t head)
      : x_(p.x, chunk.first, p.x_stride, int64_t{head} * kP), rows_(chunk.rows) {
    const int64_t item = int64_t{blockIdx.x} * p.heads + head;
    before_ = segment.before + item * (kP * kN / 8);
    dt_ = segment.dt + item * kChunk;
    sums_ = segment.sums + item * kChunk;
  }
  __device__ void Load(HeadStage<kP, kN>& stage) {
    x_.Copy(rows_, stage.x);
    CopyBytes<kP * kN * sizeof(Bf16)>(before_, stage.before);
    CopyBytes<kChunk * sizeof(float)>(dt_, stage.dt);
    CopyBytes<kChunk * sizeof(float)>(sums_, stage.sums, kThreads / 2);
    x_.Advance(kP);
    before_ += kP * kN / 8;
    dt_ += kChunk;
    sums_ += kChunk;
  }

 private:
  RowsCopy<kP> x_;
  const uint4* before_;
  const float *dt_, *sums_;
  const int32_t rows_;
};

// A warp's 16 rows, from `row` on, of a chunk.
template <int kP, int kN>
struct RowBlock {
  static constexpr int kColumns = kChunk / 16 - 1;  // of 16, before the diagonal
  int block, row, g, t, lane;
  float cb[kColumns][2][4];  // C B^T before the diagonal block, 16 columns at a time
  float diagonal[2][4];      // its diagonal block
  float y[kP / 8][4];

  // C of the rows, states [16 k, 16 k + 16), as operands a.
  __device__ void LoadC(const OutputsShared<kP, kN>& shared, int k, uint32_t (&c)[4]) const {
    LoadMatrices(c, &shared.c[row + lane % 16][k * 16 + lane / 16 * 8]);
  }
  __device__ void MultiplyCB(OutputsShared<kP, kN>& shared) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      diagonal[i / 4][i % 4] = 0;
#pragma unroll
      for (int s = 0; s < kColumns; ++s) cb[s][i / 4][i % 4] = 0;
    }
#pragma unroll
    for (int k = 0; k < kN / 16; ++k) {
      uint32_t c[4];
      LoadC(shared, k, c);
#pragma unroll
      for (int s = 0; s < kColumns; ++s) {
        if (s < block) MultiplyColumns(shared, k, s, c, cb[s]);
      }
      MultiplyColumns(shared, k, block, c, diagonal);
    }
  }
  // out += C B^T of the rows and columns [16 s, 16 s + 16), over states [16 k, 16 k + 16).
  __device__ void MultiplyColumns(OutputsShared<kP, kN>& shared, int k, int s,
                                  const uint32_t (&c)[4], float (&out)[2][4]) {
    uint32_t b[4];
    LoadMatrices(b, &shared.b()[s * 16 + lane % 8 + lane / 16 * 8][k * 16 + lane / 8 % 2 * 8]);
    MultiplyAdd(out[0], c, b[0], b[1]);
    MultiplyAdd(out[1], c, b[2], b[3]);
  }
  // y = C S * factor.
  __device__ void MultiplyState(const OutputsShared<kP, kN>& shared, const HeadStage<kP, kN>& stage,
                                float factor) {
#pragma unroll
    for (int n = 0; n < kP / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) y[n][i] = 0;
    }
#pragma unroll
    for (int k = 0; k < kN / 16; ++k) {
      uint32_t c[4];
      LoadC(shared, k, c);
#pragma unroll
      for (int m = 0; m < kP / 16; ++m) {
        const uint4 b = stage.before[m][k][lane];
        MultiplyAdd(y[2 * m], c, b.x, b.y);
        MultiplyAdd(y[2 * m + 1], c, b.z, b.w);
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
  // y + d x. Four lanes exchange what they have of four tiles of 8 columns, so that each stores 16
  // bytes of one.
  __device__ void Store(const SsdScanParams& p, const HeadStage<kP, kN>& stage, int32_t head,
                        float d, const ChunkRows& chunk) const {
    auto* to = static_cast<Bf16*>(p.y.data) + int64_t{head} * kP;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + half * 8 + g;
#pragma unroll
      for (int first = 0; first < kP / 8; first += 4) {
        uint32_t of[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int n = first + i;
          const uint32_t x = *reinterpret_cast<const uint32_t*>(&stage.x[r][n * 8 + 2 * t]);
          of[i] =
              PackPair(fmaf(d, LowOf(x), y[n][2 * half]), fmaf(d, HighOf(x), y[n][2 * half + 1]));
        }
        TransposeQuad(of);
        if (r >= chunk.rows) continue;
        *reinterpret_cast<uint4*>(to + (chunk.first + r) * p.y_stride + (first + t) * 8) =
            make_uint4(of[0], of[1], of[2], of[3]);
      }
    }
  }
  // Lane t of four gets what lane i has at t, at i.
  __device__ void TransposeQuad(uint32_t (&v)[4]) const {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
      const bool upper = (t & step) != 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if ((i & step) != 0) continue;
        const uint32_t got = __shfl_xor_sync(kAllLanes, upper ? v[i] : v[i + step], step);
        (upper ? v[i] : v[i + step]) = got;
      }
    }
  }
};

template <int kP, int kN>
__global__ void __launch_bounds__(kThreads, 2)
    Outputs(SsdScanParams p, Segment segment, int32_t heads_each) {
  auto& shared = *static_cast<OutputsShared<kP, kN>*>(DynamicShared());
  const ChunkRows chunk = RowsOf(p.rows, segment, segment.first + static_cast<int>(blockIdx.x));
  if (chunk.rows == 0) return;
  const int32_t in_group = p.heads / p.groups, blocks = (in_group + heads_each - 1) / heads_each;
  const int32_t group = static_cast<int32_t>(blockIdx.y) / blocks;
  const int32_t first = static_cast<int32_t>(blockIdx.y) % blocks * heads_each;
  const int32_t begin = group * in_group + first;
  const int32_t end = group * in_group + min(in_group, first + heads_each);

  const int64_t column = int64_t{group} * kN;
  RowsCopy<kN>(p.c, chunk.first, p.c_stride, column).Copy(chunk.rows, shared.c);
  RowsCopy<kN>(p.b, chunk.first, p.b_stride, column).Copy(chunk.rows, shared.b());
  CommitCopies();
  Loader<kP, kN> loader(p, segment, chunk, begin);
  loader.Load(shared.heads[0]);
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
    const float skip = p.d[head];
    WaitForCopies<0>();
    __syncthreads();  // the head is there, and all are done with the one before
    if (head + 1 < end) loader.Load(shared.heads[(head + 1 - begin) % 2]);
    CommitCopies();
    if (!live) continue;
    const HeadStage<kP, kN>& stage = shared.heads[(head - begin) % 2];
    const float base = rows.row == 0 ? 0.0f : stage.sums[rows.row - 1];
    float* factors = shared.factors[warp];
    for (int s = rows.lane; s < rows.row; s += kWarp) {
      factors[s] = stage.dt[s] * __expf(base - stage.sums[s]);
    }
    __syncwarp();
    rows.MultiplyState(shared, stage, __expf(base));
    rows.AddBefore(stage, factors);
    rows.Scale(__expf(stage.sums[rows.row + rows.g] - base),
               __expf(stage.sums[rows.row + rows.g + 8] - base));
    rows.AddDiagonal(stage);
    rows.Store(p, stage, head, skip, chunk);
  }
}

// Heads a block, so that the rounds of blocks that the multiprocessors need take the least time,
// where a block's C B^T costs about one head and two blocks share a multiprocessor.
int32_t HeadsEach(int32_t chunks, int32_t in_group, int32_t groups, int multiprocessors) {
  int32_t best = 1;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int32_t each = 1; each <= std::min(in_group, 16); ++each) {
    const int64_t blocks = int64_t{chunks} * groups * CeilDiv(in_group, each);
    const int64_t time = CeilDiv(blocks, 2 * multiprocessors) * (each + 1);
    if (time < least) least = time, best = each;
  }
  return best;
}

template <int kP, int kN>
absl::Status Run(const SsdScanParams& p, const Segment& segment, bool beside,
                 const Launch& launch) {
  const int32_t in_group = p.heads / p.groups;
  const int32_t each = HeadsEach(segment.count, in_group, p.groups, launch.cuda->multiprocessors());
  const dim3 grid(static_cast<unsigned>(segment.count),
                  static_cast<unsigned>(p.groups * CeilDiv(in_group, each)));
  const auto start = beside ? StartBeside<SsdScanParams, Segment, int32_t>
                            : Start<SsdScanParams, Segment, int32_t>;
  return start(launch, "SsdScan", Outputs<kP, kN>, grid, kThreads, sizeof(OutputsShared<kP, kN>), p,
               segment, each);
}

}  // namespace

size_t OutputsSharedBytes() {
  return std::max(sizeof(OutputsShared<64, 64>), sizeof(OutputsShared<64, 128>));
}

absl::Status RunOutputs(const SsdScanParams& p, const Segment& segment, bool beside,
                        const Launch& launch) {
  return p.state_dim == 64 ? Run<64, 64>(p, segment, beside, launch)
                           : Run<64, 128>(p, segment, beside, launch);
}

}  // namespace anabranch::kernels::cuda
