#include "kernels/attention.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.
#include "kernels/lanes16-inl.h"

// Up to kQueries queries that share keys (heads of one group, neighbouring rows of one sequence)
// are worked on together: all their scores into scratch, the softmax of each, then the weighted
// sums. Keys that all of them see are loaded once for all; the last few are taken query by query,
// so a later token is never touched on behalf of an earlier one. A score's 16 virtual lanes run
// over head_dim, the softmax sum's over the key's position, and a weighted sum is one chain of
// fused multiply-adds per channel: nothing depends on where a launch, a tile or a page begins.

HWY_BEFORE_NAMESPACE();
namespace anabranch::kernels {
namespace HWY_NAMESPACE {

inline constexpr int kQueries = 4;

template <bool kTail>
HWY_INLINE F16 LoadKv(const float* p, int64_t left) {
  if constexpr (kTail) return Load16UpTo(p, left);
  return Load16(p);
}

template <bool kTail>
HWY_INLINE F16 LoadKv(const uint16_t* p, int64_t left) {
  HWY_ALIGN uint16_t some[16] = {};
  if (kTail && left < 16) {
    for (int64_t i = 0; i < left; ++i) some[i] = p[i];
    p = some;
  }
  F16 out;
  for (int i = 0; i < kRegs; ++i) out.r[i] = LoadBf16(p + i * kLanes);
  return out;
}

HWY_INLINE void StoreKv(const float* from, int64_t n, float* to) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
}

HWY_INLINE void StoreKv(const float* from, int64_t n, uint16_t* to) {
  HWY_ALIGN uint32_t bits[kLanes];
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t left = std::min<int64_t>(kLanes, n - i);
    hn::Store(hn::BitCast(DU(), RoundToBf16(LoadUpTo(from + i, left))), DU(), bits);
    for (int64_t j = 0; j < left; ++j) to[i + j] = static_cast<uint16_t>(bits[j] >> 16);
  }
}

// Where position `at` of sequence `seq` lies, in elements from the base of keys or values.
HWY_INLINE int64_t KvOffset(const AttentionParams& p, int32_t seq, int64_t at) {
  const int64_t page = p.kv.pages[p.kv.page_start[seq] + at / p.kv.page_tokens];
  return page * p.kv.page_stride + at % p.kv.page_tokens * p.kv_heads * p.head_dim;
}

HWY_INLINE int32_t SequenceOf(const PackedRows& rows, int64_t row) {
  const int32_t* end = rows.row_start + rows.num_seqs + 1;
  return static_cast<int32_t>(std::upper_bound(rows.row_start, end, row) - rows.row_start) - 1;
}

template <class T>
HWY_INLINE void AppendRow(const AttentionParams& p, int64_t row) {
  const int32_t seq = SequenceOf(p.rows, row);
  const int64_t at = KvOffset(p, seq, p.position[seq] + row - p.rows.row_start[seq]);
  const int64_t width = static_cast<int64_t>(p.kv_heads) * p.head_dim;
  StoreKv(p.k + row * p.k_stride, width, static_cast<T*>(p.kv.keys) + at);
  StoreKv(p.v + row * p.v_stride, width, static_cast<T*>(p.kv.values) + at);
}

void AppendRows(const AttentionParams& p, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    p.kv.dtype == DType::kFloat32 ? AppendRow<float>(p, row) : AppendRow<uint16_t>(p, row);
  }
}

// Queries of one sequence and one group of heads.
struct QueryTile {
  int32_t seq;
  int64_t kv_offset;  // of the group's head inside a token
  int count;
  const float* q[kQueries];
  float* y[kQueries];
  float* weight[kQueries];    // scores, then probabilities, by key position
  int64_t context[kQueries];  // keys each may see, ascending
};

// weight[j] = scale * q.k_j for kQ queries and `count` neighbouring keys.
template <class T, bool kTail, int kQ>
HWY_INLINE void ScoreKeys(const float* const* q, const T* keys, int64_t step, int64_t count,
                          int64_t head_dim, float scale, float* const* weight, int64_t at) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    const T* k = keys + j * step;
    F16 s[kQ][4];
    for (int a = 0; a < kQ; ++a) s[a][0] = s[a][1] = s[a][2] = s[a][3] = Zero16();
    for (int64_t i = 0; i < head_dim; i += 16) {
      const int64_t left = head_dim - i;
      const F16 k0 = LoadKv<kTail>(k + i, left), k1 = LoadKv<kTail>(k + step + i, left);
      const F16 k2 = LoadKv<kTail>(k + 2 * step + i, left);
      const F16 k3 = LoadKv<kTail>(k + 3 * step + i, left);
      HWY_UNROLL(4)
      for (int a = 0; a < kQ; ++a) {
        const F16 q16 = LoadKv<kTail>(q[a] + i, left);
        s[a][0] = MulAdd16(q16, k0, s[a][0]);
        s[a][1] = MulAdd16(q16, k1, s[a][1]);
        s[a][2] = MulAdd16(q16, k2, s[a][2]);
        s[a][3] = MulAdd16(q16, k3, s[a][3]);
      }
    }
    HWY_UNROLL(4)
    for (int a = 0; a < kQ; ++a) {
      Sum16x4(s[a][0], s[a][1], s[a][2], s[a][3], weight[a] + at + j);
    }
  }
  for (; j < count; ++j) {
    for (int a = 0; a < kQ; ++a) {
      F16 s = Zero16();
      for (int64_t i = 0; i < head_dim; i += 16) {
        const int64_t left = head_dim - i;
        s = MulAdd16(LoadKv<kTail>(q[a] + i, left), LoadKv<kTail>(keys + j * step + i, left), s);
      }
      weight[a][at + j] = Sum16(s);
    }
  }
  for (int a = 0; a < kQ; ++a) {
    for (int64_t i = at; i < at + count; ++i) weight[a][i] *= scale;
  }
}

// Scores of queries [first, first + kQ) of the tile for keys [from, to).
template <class T, bool kTail, int kQ>
HWY_INLINE void Score(const AttentionParams& p, const QueryTile& tile, int first, int64_t from,
                      int64_t to) {
  // As many as leave the sums in registers. NOLINTNEXTLINE(bugprone-branch-clone): equal if kQ is 1
  constexpr int kEach = kRegs == 1 ? kQ : 1;
  const int64_t step = static_cast<int64_t>(p.kv_heads) * p.head_dim;
  for (int64_t at = from; at < to;) {
    const int64_t count = std::min(p.kv.page_tokens - at % p.kv.page_tokens, to - at);
    const T* keys = static_cast<const T*>(p.kv.keys) + KvOffset(p, tile.seq, at) + tile.kv_offset;
    for (int a = first; a < first + kQ; a += kEach) {
      ScoreKeys<T, kTail, kEach>(tile.q + a, keys, step, count, p.head_dim, p.scale,
                                 tile.weight + a, at);
    }
    at += count;
  }
}

HWY_INLINE float Largest(const float* scores, int64_t count) {
  const DF d;
  const float lowest = -std::numeric_limits<float>::infinity();
  VF top = hn::Set(d, lowest);
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) top = hn::Max(top, hn::LoadU(d, scores + j));
  HWY_ALIGN float lane[kLanes];
  hn::Store(top, d, lane);
  float max = lowest;
  for (int i = 0; i < kLanes; ++i) max = std::max(max, lane[i]);
  for (; j < count; ++j) max = std::max(max, scores[j]);
  return max;
}

// In place: exp(s - max) / sum, rounded if asked.
HWY_INLINE void Softmax(float* scores, int64_t count, bool round) {
  const DF d;
  const VF top = hn::Set(d, Largest(scores, count));
  F16 sum = Zero16();
  for (int64_t j = 0; j < count; j += 16) {
    for (int i = 0; i < kRegs; ++i) {
      const int64_t at = j + i * kLanes, left = count - at;
      if (left <= 0) break;
      VF e = Exp(hn::Sub(LoadUpTo(scores + at, left), top));
      if (left < kLanes) {
        e = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(left)), e);
      }
      StoreUpTo(e, scores + at, left);
      sum.r[i] = hn::Add(sum.r[i], e);
    }
  }
  const VF inverse = hn::Set(d, 1.0f / Sum16(sum));
  for (int64_t j = 0; j < count; j += kLanes) {
    VF e = hn::Mul(LoadUpTo(scores + j, count - j), inverse);
    if (round) e = RoundToBf16(e);
    StoreUpTo(e, scores + j, count - j);
  }
}

// Adds weight * value of keys [from, to) to channels [c, c + 16 * kCols) of kQ queries.
template <class T, bool kTail, int kQ, int kCols>
HWY_NOINLINE void SumChannels(const AttentionParams& p, const QueryTile& tile, int first,
                              int64_t from, int64_t to, int64_t c) {
  const int64_t step = static_cast<int64_t>(p.kv_heads) * p.head_dim, left = p.head_dim - c;
  F16 s[kQ][kCols];
  for (int a = 0; a < kQ; ++a) {
    for (int b = 0; b < kCols; ++b) {
      s[a][b] = from == 0 ? Zero16() : Load16UpTo(tile.y[first + a] + c + b * 16, left - b * 16);
    }
  }
  for (int64_t at = from; at < to;) {
    const int64_t count = std::min(p.kv.page_tokens - at % p.kv.page_tokens, to - at);
    const T* v =
        static_cast<const T*>(p.kv.values) + KvOffset(p, tile.seq, at) + tile.kv_offset + c;
    for (int64_t j = at; j < at + count; ++j, v += step) {
      VF w[kQ];
      HWY_UNROLL(4)
      for (int a = 0; a < kQ; ++a) w[a] = hn::Set(DF(), tile.weight[first + a][j]);
      HWY_UNROLL(4)
      for (int b = 0; b < kCols; ++b) {
        const F16 v16 = LoadKv<kTail>(v + b * 16, left - b * 16);
        HWY_UNROLL(4)
        for (int a = 0; a < kQ; ++a) {
          for (int i = 0; i < kRegs; ++i) {
            s[a][b].r[i] = hn::MulAdd(w[a], v16.r[i], s[a][b].r[i]);
          }
        }
      }
    }
    at += count;
  }
  for (int a = 0; a < kQ; ++a) {
    for (int b = 0; b < kCols; ++b) {
      Store16UpTo(s[a][b], tile.y[first + a] + c + b * 16, left - b * 16);
    }
  }
}

template <class T, bool kTail, int kQ>
HWY_INLINE void SumValues(const AttentionParams& p, const QueryTile& tile, int first, int64_t from,
                          int64_t to) {
  if (from == to) return;
  int64_t c = 0;
  if constexpr (kRegs == 1 && !kTail) {
    for (; c + 64 <= p.head_dim; c += 64) {
      SumChannels<T, kTail, kQ, 4>(p, tile, first, from, to, c);
    }
  }
  for (; c < p.head_dim; c += 16) SumChannels<T, kTail, kQ, 1>(p, tile, first, from, to, c);
}

template <class T, bool kTail, int kQ>
HWY_NOINLINE void AttendTile(const AttentionParams& p, const QueryTile& tile) {
  const int64_t common = tile.context[0];
  Score<T, kTail, kQ>(p, tile, 0, 0, common);
  for (int a = 0; a < kQ; ++a) {
    Score<T, kTail, 1>(p, tile, a, common, tile.context[a]);
    Softmax(tile.weight[a], tile.context[a], p.round_to_bf16);
  }
  SumValues<T, kTail, kQ>(p, tile, 0, 0, common);
  for (int a = 0; a < kQ; ++a) {
    SumValues<T, kTail, 1>(p, tile, a, common, tile.context[a]);
    if (!p.round_to_bf16) continue;
    for (int64_t i = 0; i < p.head_dim; i += kLanes) {
      const int64_t left = p.head_dim - i;
      StoreUpTo(RoundToBf16(LoadUpTo(tile.y[a] + i, left)), tile.y[a] + i, left);
    }
  }
}

template <class T, bool kTail>
HWY_INLINE void AttendQueries(const AttentionParams& p, const QueryTile& tile) {
  switch (tile.count) {
    case 1:
      return AttendTile<T, kTail, 1>(p, tile);
    case 2:
      return AttendTile<T, kTail, 2>(p, tile);
    case 3:
      return AttendTile<T, kTail, 3>(p, tile);
    default:
      return AttendTile<T, kTail, kQueries>(p, tile);
  }
}

// Queries [from, from + count) of a group: query i is row i / group size, head i % group size.
HWY_INLINE void Attend(const AttentionParams& p, int32_t seq, int64_t kv_head, int64_t from,
                       int count, float* scratch, int64_t context_stride) {
  const int64_t group = p.heads / p.kv_heads;
  QueryTile tile;
  tile.seq = seq;
  tile.kv_offset = kv_head * p.head_dim;
  tile.count = count;
  for (int a = 0; a < count; ++a) {
    const int64_t local = (from + a) / group, row = p.rows.row_start[seq] + local;
    const int64_t channel = (kv_head * group + (from + a) % group) * p.head_dim;
    tile.q[a] = p.q + row * p.q_stride + channel;
    tile.y[a] = p.y + row * p.y_stride + channel;
    tile.weight[a] = scratch + a * context_stride;
    tile.context[a] = p.position[seq] + local + 1;
  }
  const bool tail = p.head_dim % 16 != 0;
  if (p.kv.dtype == DType::kFloat32) {
    tail ? AttendQueries<float, true>(p, tile) : AttendQueries<float, false>(p, tile);
  } else {
    tail ? AttendQueries<uint16_t, true>(p, tile) : AttendQueries<uint16_t, false>(p, tile);
  }
}

// Chunk c takes the tiles c, c + chunks, ...: later rows cost more, so neighbours are dealt to
// different chunks. Each chunk has scratch of its own.
void AttendChunks(const AttentionParams& p, int64_t chunks, int64_t context_stride, int64_t begin,
                  int64_t end) {
  const int64_t group = p.heads / p.kv_heads;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    float* scratch = p.scratch + chunk * kQueries * context_stride;
    int64_t skip = chunk;  // tiles until the next one of this chunk
    for (int32_t seq = 0; seq < p.rows.num_seqs; ++seq) {
      const int64_t queries = (p.rows.row_start[seq + 1] - p.rows.row_start[seq]) * group;
      const int64_t tiles = (queries + kQueries - 1) / kQueries;
      int64_t i = skip;
      for (; i < tiles * p.kv_heads; i += chunks) {
        const int64_t from = i / p.kv_heads * kQueries;
        const int count = static_cast<int>(std::min<int64_t>(kQueries, queries - from));
        Attend(p, seq, i % p.kv_heads, from, count, scratch, context_stride);
      }
      skip = i - tiles * p.kv_heads;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace anabranch::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace anabranch::kernels {
namespace {

HWY_EXPORT(AppendRows);
HWY_EXPORT(AttendChunks);

constexpr int64_t kMaxChunks = 64;
constexpr int64_t kScratchRows = 4;  // kQueries, which lives in a target's namespace

int64_t Chunks(const AttentionParams& p) {
  return std::min<int64_t>(kMaxChunks, static_cast<int64_t>(p.rows.num_rows()) * p.heads);
}

int64_t ContextStride(int64_t max_context) { return (max_context + 15) / 16 * 16; }

absl::Status Check(const AttentionParams& p) {
  if (absl::Status s = CheckRows(p.rows, false, "Attention"); !s.ok()) return s;
  if (p.heads <= 0 || p.kv_heads <= 0 || p.heads % p.kv_heads != 0 || p.head_dim <= 0 ||
      p.kv.page_tokens <= 0) {
    return Require(false, "Attention", "bad heads, kv_heads, head_dim or page_tokens");
  }
  const int64_t kv_width = static_cast<int64_t>(p.kv_heads) * p.head_dim;
  const int64_t width = static_cast<int64_t>(p.heads) * p.head_dim;
  const bool strides = p.q_stride >= width && p.y_stride >= width && p.k_stride >= kv_width &&
                       p.v_stride >= kv_width && p.kv.page_stride >= kv_width * p.kv.page_tokens;
  const bool arrays = p.position && p.q && p.k && p.v && p.y && p.scratch && p.kv.keys &&
                      p.kv.values && p.kv.pages && p.kv.page_start;
  if (!strides || !arrays) return Require(false, "Attention", "missing array or short stride");
  for (int32_t i = 0; i < p.rows.num_seqs; ++i) {
    const int64_t context = p.position[i] + p.rows.row_start[i + 1] - p.rows.row_start[i];
    const int64_t pages = p.kv.page_start[i + 1] - p.kv.page_start[i];
    if (p.position[i] < 0 || context > pages * p.kv.page_tokens) {
      return Require(false, "Attention", "negative position, or too few pages for the new rows");
    }
  }
  return absl::OkStatus();
}

}  // namespace

int64_t AttentionScratch(const AttentionParams& params, int64_t max_context) {
  return Chunks(params) * kScratchRows * ContextStride(max_context);
}

absl::Status Attention(const AttentionParams& p, const Launch& launch) {
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status s = Check(p); !s.ok()) return s;
  int64_t max_context = 0;
  for (int32_t i = 0; i < p.rows.num_seqs; ++i) {
    max_context = std::max<int64_t>(max_context,
                                    p.position[i] + p.rows.row_start[i + 1] - p.rows.row_start[i]);
  }
  launch.For(p.rows.num_rows(), 16, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AppendRows)(p, begin, end);
  });
  const int64_t chunks = Chunks(p), context_stride = ContextStride(max_context);
  launch.For(chunks, 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AttendChunks)(p, chunks, context_stride, begin, end);
  });
  return absl::OkStatus();
}

}  // namespace anabranch::kernels
#endif  // HWY_ONCE
