// Attention of many rows on tensor cores, after FlashAttention-2 (arXiv 2307.08691): a block has 64
// rows of one head, a warp 16 of them; keys and values pass by in tiles of 64, the next tile being
// copied while one is worked on. Queries and scores never leave registers: what the first product
// leaves in a lane is what the second wants from it. 4 rows context head_dim operations a head,
// half of them causal; bytes do not count beside that, since heads of a group share keys in the L2
// cache.
//
// A row sees key tiles in order from position 0, and a tile of which it sees nothing changes
// nothing, so a row's result does not depend on how rows are cut into tiles or launches.
#include <algorithm>
#include <limits>

#include "kernels/cuda/attention_prefill.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 64;
constexpr int kKeys = 64;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// kDim: head_dim, rounded up; what is beyond it is zero. Rows are padded so that those of one
// column lie in different banks.
template <int kDim, int kStages>
struct Shared {
  using Row = Bf16[kDim + 8];
  Row q[kRows];
  Row k[kStages][kKeys];
  Row v[kStages][kKeys];
};

// A thread's part of copying 64 rows, which depends on the thread alone: worked out once.
template <int kDim>
class RowsCopy {
 public:
  __device__ RowsCopy(int64_t stride, int head_dim)
      : row_(static_cast<int>(threadIdx.x) / kParts),
        column_(static_cast<int>(threadIdx.x) % kParts * kVector),
        inside_(column_ < head_dim),
        at_(inside_ ? row_ * stride + column_ : 0),
        apart_(kApart * stride) {}

  // Starts copying `count` rows from `from` on; zeros for the others and beyond head_dim.
  __device__ void Copy(const Bf16* from, int64_t count, Bf16 (*to)[kDim + 8]) const {
    const Bf16* at = from + at_;
    if (count >= 64 && inside_) {
#pragma unroll
      for (int i = 0; i < 64; i += kApart, at += apart_) CopyAsync(&to[row_ + i][column_], at);
      return;
    }
#pragma unroll
    for (int i = 0; i < 64; i += kApart, at += apart_) {
      const bool inside = inside_ && row_ + i < count;
      CopyAsync(&to[row_ + i][column_], inside ? at : from, inside);
    }
  }

 private:
  static constexpr int kParts = kDim / kVector, kApart = kThreads / kParts;
  const int row_, column_;
  const bool inside_;
  const int64_t at_, apart_;
};

// What a block works on.
struct Block {
  int32_t seq;
  int64_t first, rows;  // of the sequence's rows here; how many
  int64_t position;     // of the first
  int64_t keys;         // that the last row sees

  __device__ int tiles() const { return static_cast<int>((keys + kKeys - 1) / kKeys); }
};

// Brings one tile of keys and values after the other.
template <int kDim, int kStages>
class Loader {
 public:
  __device__ Loader(const AttentionParams& p, const Block& block, int64_t kv_head)
      : kv_(p.kv),
        head_(kv_head * p.head_dim),
        tile_(int64_t{kKeys} * p.kv_heads * p.head_dim),
        tiles_of_page_(p.kv.page_tokens / kKeys),
        page_(p.kv.pages + p.kv.page_start[block.seq]),
        left_(block.keys),
        copy_(int64_t{p.kv_heads} * p.head_dim, p.head_dim) {}

  __device__ void Load(Shared<kDim, kStages>& shared, int stage) {
    if (tile_in_page_ == 0) {
      const int64_t at = *page_++ * kv_.page_stride + head_;
      keys_ = static_cast<const Bf16*>(kv_.keys) + at;
      values_ = static_cast<const Bf16*>(kv_.values) + at;
    }
    copy_.Copy(keys_, left_, shared.k[stage]);
    copy_.Copy(values_, left_, shared.v[stage]);
    keys_ += tile_;
    values_ += tile_;
    left_ -= kKeys;
    if (++tile_in_page_ == tiles_of_page_) tile_in_page_ = 0;
  }

 private:
  const PagedKv& kv_;
  const int64_t head_, tile_;
  const int tiles_of_page_;
  const int32_t* page_;  // the next one
  int64_t left_;         // keys
  const RowsCopy<kDim> copy_;
  int tile_in_page_ = 0;
  const Bf16 *keys_ = nullptr, *values_ = nullptr;
};

// A warp's 16 rows. Index 0 and 1 of an array: rows g and g + 8 (mma.h).
template <int kDim>
struct Rows {
  float out[kDim / 8][4] = {};
  float top[2] = {kLowest, kLowest};
  float sum[2] = {0, 0};  // of this lane's columns only
};

// The warp's rows of q as operands. Of wide heads they stay in shared memory: registers are short.
template <int kDim>
class Queries {
 public:
  __device__ void Load(const Bf16 (*q)[kDim + 8]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    from_ = &q[static_cast<int>(threadIdx.x) / kWarp * 16 + lane % 16][lane / 16 * 8];
    if constexpr (kKept) {
#pragma unroll
      for (int c = 0; c < kDim; c += 16) LoadMatrices(a_[c / 16], from_ + c);
    }
  }
  // Columns [c, c + 16).
  __device__ void Get(int c, uint32_t (&a)[4]) const {
    if constexpr (kKept) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = a_[c / 16][i];
    } else {
      LoadMatrices(a, from_ + c);
    }
  }

 private:
  static constexpr bool kKept = kDim <= 128;
  const Bf16* from_ = nullptr;
  uint32_t a_[kKept ? kDim / 16 : 1][4];
};

// score = q k^T for the warp's rows and all keys of a tile.
template <int kDim>
__device__ inline void Score(const Queries<kDim>& q, const Bf16 (*k)[kDim + 8],
                             float (&score)[kKeys / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int c = 0; c < kDim; c += 16) {
    uint32_t a[4];
    q.Get(c, a);
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      uint32_t b[4];
      LoadMatrices(b, &k[j * 16 + lane / 16 * 8 + lane % 8][c + lane / 8 % 2 * 8]);
      Mma(score[2 * j], a[0], a[1], a[2], a[3], b[0], b[1]);
      Mma(score[2 * j + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }
}

// Keys that a row does not see get the lowest score. `first_key` of the tile, `position` of the
// warp's first row.
__device__ inline void Mask(int64_t first_key, int64_t position, float (&score)[kKeys / 8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto seen = static_cast<int>(
        min(position + lane / 4 + half * 8 - first_key, int64_t{kKeys}));  // the last key seen
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        if (j * 8 + lane % 4 * 2 + i % 2 > seen) score[j][i] = kLowest;
      }
    }
  }
}

// Scores to powers of two of what is left after the rows' maximum, which rescales what is summed
// already. `scale` is positive.
template <int kDim>
__device__ inline void Exponentials(float scale, float (&score)[kKeys / 8][4], Rows<kDim>& rows) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = rows.top[half];
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
      top = fmaxf(top, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
    }
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
    top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
    const float base = top == kLowest ? 0 : top * scale;  // nothing seen yet: all stays zero
    const float rescale = Exp2(fmaf(rows.top[half], scale, -base));
    rows.top[half] = top;
    rows.sum[half] *= rescale;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        score[j][i] = Exp2(fmaf(score[j][i], scale, -base));
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
__global__ void __launch_bounds__(kThreads, kDim <= 64 ? 4 : 2) PrefillKernel(AttentionParams p) {
  auto& shared = *static_cast<Shared<kDim, kStages>*>(DynamicShared());
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
  RowsCopy<kDim>(p.q_stride, p.head_dim)
      .Copy(static_cast<const Bf16*>(p.q.data) + (begin + block.first) * p.q_stride +
                head * p.head_dim,
            block.rows, shared.q);
  Loader<kDim, kStages> loader(p, block, kv_head);
  loader.Load(shared, 0);
  CommitCopies();
  Rows<kDim> rows;
  Queries<kDim> queries;
  const float scale = p.scale * kLog2E;
  const int64_t position = block.position + static_cast<int>(threadIdx.x) / kWarp * 16;
  const int tiles = block.tiles();
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kStages;
    if constexpr (kStages == 2) {
      if (tile + 1 < tiles) loader.Load(shared, (tile + 1) % kStages);
      CommitCopies();
      WaitForCopies<1>();
    } else {
      WaitForCopies<0>();
    }
    __syncthreads();
    if (tile == 0) queries.Load(shared.q);
    float score[kKeys / 8][4] = {};
    Score<kDim>(queries, shared.k[stage], score);
    const int64_t first_key = int64_t{tile} * kKeys;
    if (first_key + kKeys - 1 > position) Mask(first_key, position, score);
    Exponentials<kDim>(scale, score, rows);
    SumValues<kDim>(score, shared.v[stage], rows);
    __syncthreads();  // before what was read is overwritten
    if (kStages == 1 && tile + 1 < tiles) {
      loader.Load(shared, 0);
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
  return p.scale > 0 && p.q.dtype == DType::kBFloat16 && p.kv.dtype == DType::kBFloat16 &&
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
