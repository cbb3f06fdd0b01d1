// A sequence's rows in a launch are cut into chunks of Q = 128, the first at its first row. With
// c_l the running sum of dt * A in a chunk and S the state before it, per head:
//   y_l = exp(c_l) C_l S + sum over s <= l of (C_l . B_s) dt_s exp(c_l - c_s) x_s + D x_l
//   S'  = exp(c_last) S + sum over s of (dt_s exp(c_last - c_s) x_s) outer B_s
// Every exponent is a difference that is not positive.
//
// Three kernels:
//   Prepare  dt, its running sums and what is derived from them, per chunk and head.
//   States   one block a head and sequence walks the chunks with S in registers (the accumulators
//   of
//            the products), writes S before each chunk as bfloat16 in the order in which Outputs
//            wants its operands, and the last S into the slot. Chunks are loaded three ahead.
//            Passing S in registers saves the round trip of one float32 state a chunk and head
//            through memory, which at Q = 128 would be more bytes than x and y together.
//   Outputs  one block a chunk and some heads of a group. C B^T is computed once for them and stays
//            in registers, where the accumulators of one product are the operand of the next. A
//            warp has 16 rows; those before its 16 x 16 diagonal block share one factor a column,
//            so that exponentials are needed for the diagonal alone.
// S before each chunk lies in scratch; chunks are done in segments to bound it.
//
// Operations for a token and head of P x N, Q = 128, k heads a block: 2 Q N / 2 / k (C B^T,
// causal), Q P (its product with x, causal), 2 P N (C S), 2 P N (States): 42 thousand at 64 x 128,
// 0.44 TFLOP for 131,072 tokens of 80 heads. Bytes for a token: 2 P of x twice, 2 P of y, 2 * 2 P N
// / Q of S a head; B and C come from cache: 51 KB at 80 heads, 6.7 GB for 131,072 tokens, 1.6 ms at
// 4.2 TB/s if none of S stayed in the cache.
#include <algorithm>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/ssd_chunked.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr const char* kName = "SsdScan";
constexpr int kChunk = 128;    // Q
constexpr int kThreads = 256;  // of States and Outputs
constexpr int kWarps = kThreads / kWarp;
constexpr size_t kMostScratch = size_t{192} << 20;

// Chunk k of sequence i has the id row_start[i] / Q + i + k: ascending, distinct, not all in use.
struct Segment {
  int32_t longer_than;
  int32_t first, count;  // ids
  float* dt;             // [count, heads, Q]; 0 beyond the rows of a chunk
  float* sums;           // the same: c
  float* weights;        // the same: dt * exp(c_last - c)
  float* decay;          // [count, heads]: exp(c_last)
  double* t;             // [count, heads]: sum of dt
  uint4* before;         // [count, heads, P / 16, N / 16, 32]: S before the chunk, see States
};

struct ChunkRows {
  int64_t first = 0;
  int32_t rows = 0;  // none: no such chunk
};

__device__ ChunkRows RowsOf(const PackedRows& rows, const Segment& segment, int32_t id) {
  int32_t low = 0, high = rows.num_seqs;  // the last sequence whose first id is not beyond
  while (high - low > 1) {
    const int32_t middle = (low + high) / 2;
    if (rows.row_start[middle] / kChunk + middle <= id) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const int32_t begin = rows.row_start[low], end = rows.row_start[low + 1];
  ChunkRows out;
  out.first = begin + int64_t{id - begin / kChunk - low} * kChunk;
  if (end - begin > segment.longer_than && out.first < end) {
    out.rows = static_cast<int32_t>(min(int64_t{kChunk}, end - out.first));
  }
  return out;
}

constexpr int kPrepareThreads = 128, kPrepareHeads = 32;

// A block takes 32 heads of a chunk: loads along the heads, sums along the rows.
__global__ void __launch_bounds__(kPrepareThreads) Prepare(SsdScanParams p, Segment segment) {
  __shared__ float tile[kPrepareHeads][kChunk + 1];
  const ChunkRows chunk = RowsOf(p.rows, segment, segment.first + static_cast<int>(blockIdx.x));
  if (chunk.rows == 0) return;
  const int32_t first_head = static_cast<int32_t>(blockIdx.y) * kPrepareHeads;
  for (int i = threadIdx.x; i < kChunk * kPrepareHeads; i += kPrepareThreads) {
    const int t = i / kPrepareHeads, h = i % kPrepareHeads;
    const bool in = t < chunk.rows && first_head + h < p.heads;
    tile[h][t] = in ? StepSize(p, chunk.first + t, first_head + h) : 0.0f;
  }
  __syncthreads();
  constexpr int kEach = kChunk / kWarp;
  const int lane = threadIdx.x % kWarp;
  for (int h = threadIdx.x / kWarp; h < kPrepareHeads; h += kPrepareThreads / kWarp) {
    const int32_t head = first_head + h;
    if (head >= p.heads) break;
    const float a = p.a[head];
    float dt[kEach], c[kEach], w[kEach];
    double t_sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      dt[i] = tile[h][lane * kEach + i];
      c[i] = i == 0 ? dt[i] * a : c[i - 1] + dt[i] * a;
      t_sum += dt[i];
    }
    float sum = c[kEach - 1];  // of all lanes up to this one
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const float left = __shfl_up_sync(kAllLanes, sum, step);
      if (lane >= step) sum += left;
    }
    const float left = __shfl_up_sync(kAllLanes, sum, 1);
    t_sum = WarpSum(t_sum);
#pragma unroll
    for (int i = 0; i < kEach; ++i) c[i] += lane == 0 ? 0.0f : left;
    const float last = __shfl_sync(kAllLanes, c[kEach - 1], kWarp - 1);
#pragma unroll
    for (int i = 0; i < kEach; ++i) w[i] = dt[i] * expf(last - c[i]);
    const int64_t item = int64_t{blockIdx.x} * p.heads + head;
    const int64_t at = item * kChunk + lane * kEach;
    StoreNarrow<kEach>(dt, segment.dt + at);
    StoreNarrow<kEach>(c, segment.sums + at);
    StoreNarrow<kEach>(w, segment.weights + at);
    if (lane != 0) continue;
    segment.decay[item] = expf(last);
    segment.t[item] = t_sum;
  }
}

__device__ inline void MultiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  Mma(d, a[0], a[1], a[2], a[3], b0, b1);
}
__device__ inline float LowOf(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float HighOf(uint32_t pair) { return __uint_as_float(pair & 0xFFFF0000u); }

// Rows of bfloat16 into shared memory, `pitch` elements apart: 8 elements more than a row, so that
// matrices of 8 rows meet all banks once. Rows from `rows` on become zeros.
template <int kWidth>
__device__ void CopyRows(const ConstActs& from, int64_t first, int64_t stride, int64_t column,
                         int32_t rows, Bf16 (*to)[kWidth + 8]) {
  constexpr int kPieces = kWidth / 8;
  const Bf16* data = static_cast<const Bf16*>(from.data) + first * stride + column;
#pragma unroll 4
  for (int i = threadIdx.x; i < kChunk * kPieces; i += kThreads) {
    const int r = i / kPieces, piece = i % kPieces;
    const bool valid = r < rows;
    CopyAsync(&to[r][piece * 8], data + (valid ? r * stride : 0) + piece * 8, valid);
  }
}

// Up to `count` multiples of 16 bytes.
__device__ void CopyArray(const void* from, int count, void* to) {
  for (int i = threadIdx.x; i < count; i += kThreads) {
    CopyAsync(static_cast<uint4*>(to) + i, static_cast<const uint4*>(from) + i, true);
  }
}

constexpr int kStages = 3;

template <int kP, int kN>
struct StatesStage {
  Bf16 x[kChunk][kP + 8];
  Bf16 b[kChunk][kN + 8];
  alignas(16) float weights[kChunk];
};

// What a block of States walks.
struct Walker {
  int32_t head, base, from, to;  // base: id of the sequence's first chunk; chunks [from, to)
  int64_t begin, end;            // rows of the sequence
};

template <int kP, int kN>
__device__ void LoadStage(const SsdScanParams& p, const Segment& segment, const Walker& walker,
                          int32_t chunk, StatesStage<kP, kN>* stages) {
  if (chunk < walker.to) {
    StatesStage<kP, kN>& stage = stages[(chunk - walker.from) % kStages];
    const int64_t first = walker.begin + int64_t{chunk} * kChunk;
    const auto rows = static_cast<int32_t>(min(int64_t{kChunk}, walker.end - first));
    const int64_t group = walker.head / (p.heads / p.groups);
    CopyRows<kP>(p.x, first, p.x_stride, int64_t{walker.head} * kP, rows, stage.x);
    CopyRows<kN>(p.b, first, p.b_stride, group * kN, rows, stage.b);
    const int64_t item = int64_t{walker.base + chunk - segment.first} * p.heads + walker.head;
    CopyArray(segment.weights + item * kChunk, kChunk / 4, stage.weights);
  }
  CommitCopies();
}

// The accumulators of a warp: kM x kT tiles of 16 rows (of head_dim) x 8 columns (of state_dim).
template <int kP, int kN>
struct Tiles {
  static constexpr int kM = kP / 32, kT = kN / 32;  // 2 x 4 warps
  float s[kM][kT][4];
  int first_p, first_n, g, t;

  __device__ Tiles() {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    first_p = warp / 4 * (kP / 2), first_n = warp % 4 * (kN / 4);
    g = lane / 4, t = lane % 4;
  }
  // Calls f(pointer to two floats of the state, their values).
  template <class F>
  __device__ void ForEach(float* state, F f) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kT; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_p + m * 16 + half * 8 + g, column = first_n + n * 8 + 2 * t;
          f(reinterpret_cast<float2*>(state + row * kN + column), s[m][n][2 * half],
            s[m][n][2 * half + 1]);
        }
      }
    }
  }
  // As operands b of products over state_dim: for each 16 x 16 of S, the fragments of its first and
  // of its second 8 rows.
  __device__ void StoreOperands(uint4* to) const {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kT; n += 2) {
        const int tile = (first_p / 16 + m) * (kN / 16) + (first_n + n * 8) / 16;
        to[tile * kWarp + threadIdx.x % kWarp] =
            make_uint4(PackPair(s[m][n][0], s[m][n][1]), PackPair(s[m][n + 1][0], s[m][n + 1][1]),
                       PackPair(s[m][n][2], s[m][n][3]), PackPair(s[m][n + 1][2], s[m][n + 1][3]));
      }
    }
  }
  __device__ void Decay(float factor) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kT; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) s[m][n][i] *= factor;
      }
    }
  }
  // s += (x * weight)^T B.
  __device__ void Add(const StatesStage<kP, kN>& stage) {
    const int lane = threadIdx.x % kWarp;
#pragma unroll 2
    for (int k = 0; k < kChunk; k += 16) {
      const float2 low = *reinterpret_cast<const float2*>(&stage.weights[k + 2 * t]);
      const float2 high = *reinterpret_cast<const float2*>(&stage.weights[k + 8 + 2 * t]);
      uint32_t a[kM][4];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        LoadMatricesTransposed(
            a[m], &stage.x[k + lane % 8 + lane / 16 * 8][first_p + m * 16 + lane / 8 % 2 * 8]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 w = i < 2 ? low : high;
          a[m][i] = PackPair(LowOf(a[m][i]) * w.x, HighOf(a[m][i]) * w.y);
        }
      }
#pragma unroll
      for (int n = 0; n < kT; n += 2) {
        uint32_t b[4];
        LoadMatricesTransposed(b, &stage.b[k + lane % 16][first_n + n * 8 + lane / 16 * 8]);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          MultiplyAdd(s[m][n], a[m], b[0], b[1]);
          MultiplyAdd(s[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
};

template <int kP, int kN>
__global__ void __launch_bounds__(kThreads, 1) States(SsdScanParams p, Segment segment) {
  auto* stages = static_cast<StatesStage<kP, kN>*>(DynamicShared());
  const int32_t seq = static_cast<int32_t>(blockIdx.y);
  Walker walker;
  walker.head = static_cast<int32_t>(blockIdx.x);
  walker.begin = p.rows.row_start[seq], walker.end = p.rows.row_start[seq + 1];
  walker.base = static_cast<int32_t>(walker.begin) / kChunk + seq;
  const auto rows = static_cast<int32_t>(walker.end - walker.begin);
  walker.from = max(0, segment.first - walker.base);
  walker.to = min((rows + kChunk - 1) / kChunk, segment.first + segment.count - walker.base);
  if (rows <= segment.longer_than || walker.from >= walker.to) return;

  for (int i = 0; i < kStages - 1; ++i) LoadStage(p, segment, walker, walker.from + i, stages);
  const int64_t slot = p.rows.slot[seq];
  float* state = p.state + slot * p.state_slot_stride + int64_t{walker.head} * kP * kN;
  Tiles<kP, kN> tiles;
  tiles.ForEach(state, [](const float2* at, float& a, float& b) { a = at->x, b = at->y; });
  double* t_sum = p.t_sum + slot * p.t_slot_stride + walker.head;
  double sum = threadIdx.x == 0 ? *t_sum : 0.0;
  int64_t item = int64_t{walker.base + walker.from - segment.first} * p.heads + walker.head;
  float next_decay = segment.decay[item];
  double next_t = segment.t[item];
  for (int32_t chunk = walker.from; chunk < walker.to; ++chunk) {
    const float decay = next_decay;
    sum += next_t;
    if (chunk + 1 < walker.to) {
      next_decay = segment.decay[item + p.heads];
      next_t = segment.t[item + p.heads];
    }
    tiles.StoreOperands(segment.before + item * (kP * kN / 8));
    item += p.heads;
    WaitForCopies<kStages - 2>();
    __syncthreads();  // the chunk is there, and all are done with the one before
    LoadStage(p, segment, walker, chunk + kStages - 1, stages);
    tiles.Decay(decay);
    tiles.Add(stages[(chunk - walker.from) % kStages]);
  }
  tiles.ForEach(state, [](float2* at, float a, float b) { *at = make_float2(a, b); });
  if (threadIdx.x == 0) *t_sum = sum;
}

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
absl::Status RunSegment(const SsdScanParams& p, const Segment& segment, const Launch& launch) {
  const auto count = static_cast<unsigned>(segment.count), heads = static_cast<unsigned>(p.heads);
  const dim3 prepare(count, static_cast<unsigned>(CeilDiv(p.heads, kPrepareHeads)));
  absl::Status s = Start(launch, kName, Prepare, prepare, kPrepareThreads, 0, p, segment);
  if (!s.ok()) return s;
  absl::Status states =
      Start(launch, kName, States<kP, kN>, dim3(heads, static_cast<unsigned>(p.rows.num_seqs)),
            kThreads, sizeof(StatesStage<kP, kN>) * kStages, p, segment);
  if (!states.ok()) return states;
  const int32_t in_group = p.heads / p.groups;
  const int32_t each = HeadsEach(segment.count, in_group, p.groups, launch.cuda->multiprocessors());
  const dim3 outputs(count, static_cast<unsigned>(p.groups * CeilDiv(in_group, each)));
  return Start(launch, kName, Outputs<kP, kN>, outputs, kThreads, sizeof(OutputsShared<kP, kN>), p,
               segment, each);
}

// Arrays of `count` chunks in one block of scratch, the most aligned first.
Segment Place(char* scratch, int32_t count, const SsdScanParams& p) {
  Segment segment{};
  const size_t items = static_cast<size_t>(count) * static_cast<size_t>(p.heads);
  const size_t cells = static_cast<size_t>(p.head_dim) * static_cast<size_t>(p.state_dim);
  segment.before = reinterpret_cast<uint4*>(scratch);
  scratch += items * cells * sizeof(Bf16);
  for (float** array : {&segment.dt, &segment.sums, &segment.weights}) {
    *array = reinterpret_cast<float*>(scratch);
    scratch += items * kChunk * sizeof(float);
  }
  segment.t = reinterpret_cast<double*>(scratch);
  segment.decay = reinterpret_cast<float*>(scratch + items * sizeof(double));
  return segment;
}

size_t BytesOfChunk(const SsdScanParams& p) {
  const size_t cells = static_cast<size_t>(p.head_dim) * static_cast<size_t>(p.state_dim);
  return static_cast<size_t>(p.heads) *
         (cells * sizeof(Bf16) + 3 * kChunk * sizeof(float) + sizeof(double) + sizeof(float));
}

}  // namespace

bool TakesChunks(const SsdScanParams& p) {
  const bool dtypes = p.x.dtype == DType::kBFloat16 && p.b.dtype == DType::kBFloat16 &&
                      p.c.dtype == DType::kBFloat16 && p.y.dtype == DType::kBFloat16;
  return dtypes && p.head_dim == 64 && (p.state_dim == 64 || p.state_dim == 128) &&
         TakesVectors(p.x.data, p.x_stride) && TakesVectors(p.b.data, p.b_stride) &&
         TakesVectors(p.c.data, p.c_stride) && TakesVectors(p.y.data, p.y_stride) &&
         IsAligned(p.state) && p.state_slot_stride % 4 == 0 && p.rows.num_seqs <= 65535;
}

absl::Status SsdChunked(const SsdScanParams& p, int32_t longer_than, const Launch& launch) {
  const int64_t ids = int64_t{p.rows.total_rows} / kChunk + p.rows.num_seqs;
  const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(kMostScratch / BytesOfChunk(p)));
  const auto each = static_cast<int32_t>(CeilDiv(ids, CeilDiv(ids, most)));
  absl::StatusOr<void*> scratch = launch.cuda->Scratch(BytesOfChunk(p) * static_cast<size_t>(each));
  if (!scratch.ok()) return scratch.status();
  Segment segment = Place(static_cast<char*>(*scratch), each, p);
  segment.longer_than = longer_than;
  for (segment.first = 0; segment.first < ids; segment.first += each) {
    segment.count = static_cast<int32_t>(std::min<int64_t>(each, ids - segment.first));
    absl::Status s = p.state_dim == 64 ? RunSegment<64, 64>(p, segment, launch)
                                       : RunSegment<64, 128>(p, segment, launch);
    if (!s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace anabranch::kernels::cuda
