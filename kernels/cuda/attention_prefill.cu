// Attention of many rows on tensor cores, after FlashAttention-2 (arXiv 2307.08691): a block has 64
// rows of one head, a warp 16 of them; keys and values pass by in tiles of 64, the next tile being
// copied while one is worked on. Scores never leave registers: what the first product leaves in a
// lane is what the second wants from it. 4 rows context head_dim operations a head, half of them
// causal; bytes do not count beside that, since heads of a group share keys in the L2 cache.
//
// A row sees key tiles in order from position 0, and a tile of which it sees nothing changes
// nothing, so a row's result does not depend on how rows are cut into tiles or launches.
#include <algorithm>
#include <limits>

#include "kernels/cuda/attention_prefill.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 64;
constexpr int kKeys = 64;
constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr float kLog2E = 1.4426950408889634f;

// kDim: head_dim, rounded up; what is beyond it is zero. Rows are padded so that those of one
// column lie in different banks.
template <int kDim, int kStages>
struct Shared {
  using Row = Bf16[kDim + 8];
  Row q[kRows];
  Row k[kStages][kKeys];
  Row v[kStages][kKeys];
};

// Starts copying `count` of 64 rows; zeros for the others.
template <int kDim>
__device__ inline void CopyRows64(const Bf16* from, int64_t stride, int64_t count, int head_dim,
                                  Bf16 (*to)[kDim + 8]) {
  constexpr int kParts = kDim / kVector;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < 64 * kParts; i += kThreads) {
    const int row = i / kParts, column = i % kParts * kVector;
    const bool inside = row < count && column < head_dim;
    CopyAsync(&to[row][column], from + (inside ? row * stride + column : 0), inside);
  }
}

// What a block works on.
struct Block {
  int32_t seq;
  int64_t first, rows;  // of the sequence's rows here; how many
  int64_t position;     // of the first
  int64_t keys;         // that the last row sees

  __device__ int64_t tiles() const { return (keys + kKeys - 1) / kKeys; }
};

template <int kDim, int kStages>
__device__ inline void CopyTile(const AttentionParams& p, const Block& block, int64_t tile,
                                int64_t kv_head, Shared<kDim, kStages>& shared) {
  const int64_t at = tile * kKeys;
  const int64_t page = p.kv.pages[p.kv.page_start[block.seq] + at / p.kv.page_tokens];
  const int64_t stride = static_cast<int64_t>(p.kv_heads) * p.head_dim;
  const int64_t from =
      page * p.kv.page_stride + at % p.kv.page_tokens * stride + kv_head * p.head_dim;
  const int stage = static_cast<int>(tile % kStages);
  const int64_t count = min(int64_t{kKeys}, block.keys - at);
  CopyRows64<kDim>(static_cast<const Bf16*>(p.kv.keys) + from, stride, count, p.head_dim,
                   shared.k[stage]);
  CopyRows64<kDim>(static_cast<const Bf16*>(p.kv.values) + from, stride, count, p.head_dim,
                   shared.v[stage]);
}

// A warp's 16 rows. Index 0 and 1 of an array: rows g and g + 8 (mma.h).
template <int kDim>
struct Rows {
  float out[kDim / 8][4] = {};
  float top[2] = {kLowest, kLowest};
  float sum[2] = {0, 0};  // of this lane's columns only
};

// score = q k^T for the warp's rows and all keys of a tile.
template <int kDim>
__device__ inline void Score(const Bf16 (*q)[kDim + 8], const Bf16 (*k)[kDim + 8],
                             float (&score)[kKeys / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = static_cast<int>(threadIdx.x) / kWarp * 16 + lane % 16;
#pragma unroll
  for (int c = 0; c < kDim; c += 16) {
    uint32_t a[4];
    LoadMatrices(a, &q[row][c + lane / 16 * 8]);
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      uint32_t b[4];
      LoadMatrices(b, &k[j * 16 + lane / 16 * 8 + lane % 8][c + lane / 8 % 2 * 8]);
      Mma(score[2 * j], a[0], a[1], a[2], a[3], b[0], b[1]);
      Mma(score[2 * j + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }
}

// Scores to powers of two of what is left after the rows' maximum, which rescales what is summed
// already. `first_key` of the tile, `position` of the warp's first row.
template <int kDim>
__device__ inline void Exponentials(float scale, int64_t first_key, int64_t position,
                                    float (&score)[kKeys / 8][4], Rows<kDim>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool all_seen = first_key + kKeys - 1 <= position;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto seen = static_cast<int>(
        min(position + lane / 4 + half * 8 - first_key, int64_t{kKeys}));  // the last key seen
    float top = rows.top[half];
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        const int key = j * 8 + lane % 4 * 2 + i % 2;
        score[j][i] = all_seen || key <= seen ? score[j][i] * scale : kLowest;
        top = fmaxf(top, score[j][i]);
      }
    }
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
    const float base = top == kLowest ? 0 : top;  // nothing seen yet: all stays zero
    const float rescale = exp2f(rows.top[half] - base);
    rows.top[half] = top;
    rows.sum[half] *= rescale;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        score[j][i] = exp2f(score[j][i] - base);
        rows.sum[half] += score[j][i];
      }
    }
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      rows.out[j][2 * half] *= rescale;
      rows.out[j][2 * half + 1] *= rescale;
    }
  }
}

// out += probabilities times values.
template <int kDim>
__device__ inline void SumValues(const float (&weight)[kKeys / 8][4], const Bf16 (*v)[kDim + 8],
                                 Rows<kDim>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    const float(&left)[4] = weight[2 * j];
    const float(&right)[4] = weight[2 * j + 1];
    const uint32_t a0 = PackPair(left[0], left[1]), a1 = PackPair(left[2], left[3]);
    const uint32_t a2 = PackPair(right[0], right[1]), a3 = PackPair(right[2], right[3]);
#pragma unroll
    for (int c = 0; c < kDim; c += 16) {
      uint32_t b[4];
      LoadMatricesTransposed(b, &v[j * 16 + lane % 16][c + lane / 16 * 8]);
      Mma(rows.out[c / 8], a0, a1, a2, a3, b[0], b[1]);
      Mma(rows.out[c / 8 + 1], a0, a1, a2, a3, b[2], b[3]);
    }
  }
}

template <int kDim>
__device__ inline void StoreRows(const AttentionParams& p, const Block& block, int64_t head,
                                 Rows<kDim>& rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarp * 16;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = rows.sum[half];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    const int row = warp_row + lane / 4 + half * 8;
    if (row >= block.rows) continue;
    const int64_t to =
        (p.rows.row_start[block.seq] + block.first + row) * p.y_stride + head * p.head_dim;
#pragma unroll
    for (int j = 0; j < kDim / 8; ++j) {
      const int column = j * 8 + lane % 4 * 2;
      if (column >= p.head_dim) break;
      StorePair(p.y, to + column, rows.out[j][2 * half] / sum, rows.out[j][2 * half + 1] / sum);
    }
  }
}

// Blocks: (tiles of rows, heads, sequences).
template <int kDim, int kStages>
__global__ void __launch_bounds__(kThreads) PrefillKernel(AttentionParams p) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<kDim, kStages>*>(memory);
  Block block;
  block.seq = static_cast<int32_t>(blockIdx.z);
  // Later rows have more to do: they start first.
  block.first = static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int64_t begin = p.rows.row_start[block.seq];
  const int64_t rows_here = p.rows.row_start[block.seq + 1] - begin;
  if (block.first >= rows_here) return;
  block.rows = min(int64_t{kRows}, rows_here - block.first);
  block.position = p.position[block.seq] + block.first;
  block.keys = block.position + block.rows;
  const int64_t head = blockIdx.y, kv_head = head / (p.heads / p.kv_heads);
  CopyRows64<kDim>(
      static_cast<const Bf16*>(p.q.data) + (begin + block.first) * p.q_stride + head * p.head_dim,
      p.q_stride, block.rows, p.head_dim, shared.q);
  CopyTile(p, block, 0, kv_head, shared);
  CommitCopies();
  Rows<kDim> rows;
  const float scale = p.scale * kLog2E;
  const int64_t position = block.position + static_cast<int>(threadIdx.x) / kWarp * 16;
  const int64_t tiles = block.tiles();
  for (int64_t tile = 0; tile < tiles; ++tile) {
    if constexpr (kStages == 2) {
      if (tile + 1 < tiles) CopyTile(p, block, tile + 1, kv_head, shared);
      CommitCopies();
      WaitForCopies<1>();
    } else {
      WaitForCopies<0>();
    }
    __syncthreads();
    const int stage = static_cast<int>(tile % kStages);
    float score[kKeys / 8][4] = {};
    Score<kDim>(shared.q, shared.k[stage], score);
    Exponentials<kDim>(scale, tile * kKeys, position, score, rows);
    SumValues<kDim>(score, shared.v[stage], rows);
    __syncthreads();  // before what was read is overwritten
    if (kStages == 1 && tile + 1 < tiles) {
      CopyTile(p, block, tile + 1, kv_head, shared);
      CommitCopies();
    }
  }
  StoreRows<kDim>(p, block, head, rows);
}

template <int kDim, int kStages>
absl::Status Run(const AttentionParams& p, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(p.rows.longest, kRows)),
                  static_cast<unsigned>(p.heads), static_cast<unsigned>(p.rows.num_seqs));
  return Start(launch, "Attention, prefill", PrefillKernel<kDim, kStages>, grid, kThreads,
               sizeof(Shared<kDim, kStages>), p);
}

}  // namespace

bool FitsPrefillAttention(const AttentionParams& p) {
  return p.q.dtype == DType::kBFloat16 && p.kv.dtype == DType::kBFloat16 &&
         p.head_dim % kVector == 0 && p.head_dim <= 256 && p.kv.page_tokens % kKeys == 0 &&
         TakesVectors(p.q.data, p.q_stride) && TakesVectors(p.y.data, p.y_stride) &&
         TakesVectors(p.kv.keys, p.kv.page_stride) && IsAligned(p.kv.values);
}

absl::Status PrefillAttention(const AttentionParams& p, const Launch& launch) {
  if (p.head_dim <= 64) return Run<64, 2>(p, launch);
  if (p.head_dim <= 128) return Run<128, 2>(p, launch);
  return Run<256, 1>(p, launch);
}

}  // namespace anabranch::kernels::cuda
