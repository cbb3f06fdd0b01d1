// Causal attention over paged keys and values: new keys and values are written to their pages
// first, then tiles of queries walk over the keys.
//
// A tile is up to 8 queries (4 where groups are that small) of one sequence that share a key head:
// the heads of its group and neighbouring rows, so keys and values are read once for all of them.
// The softmax runs along with the keys in float32 (a running maximum and sum; what is summed
// already is rescaled when the maximum grows). Per 64 keys: scores, 4 lanes a key and a 16-byte
// load each; then exponentials, one warp a query; then the sums of values, a thread having 8
// channels of every few keys.
//
// Decode (one row a sequence) has few queries, so there the keys are cut into chunks, each a block
// with a partial result, and a second kernel adds those up in order. A chunk's size depends on the
// length of the sequence's own context alone, and so does the result. The floor is the bytes of
// keys and values in the context, once; partial results are below 2 % of them.
//
#include <algorithm>
#include <limits>

#include "kernels/cuda/attention_prefill.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMaxQueries = 8;  // of a tile; kQueries of its kernel are these or 4
static_assert(kMaxQueries <= kWarps, "each warp has the exponentials of one query");
constexpr int kKeys = 64;  // at a time, 4 threads each
constexpr int kMaxHeadDim = 256;
constexpr int kMinChunk = 256;  // keys; a multiple of kKeys
constexpr int kMaxChunks = 64;  // of one sequence
constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Keys of one chunk in decode: as few as leave at most kMaxChunks.
__host__ __device__ inline int64_t ChunkKeys(int64_t context) {
  int64_t keys = kMinChunk;
  while (keys * kMaxChunks < context) keys *= 2;
  return keys;
}

// Where position `at` of sequence `seq` lies, in elements from the base of keys or values.
__device__ inline int64_t KvOffset(const AttentionParams& p, int32_t seq, int64_t at) {
  const auto position = static_cast<uint32_t>(at);
  const auto page_tokens = static_cast<uint32_t>(p.kv.page_tokens);
  const int64_t page = p.kv.pages[p.kv.page_start[seq] + position / page_tokens];
  return page * p.kv.page_stride +
         static_cast<int64_t>(position % page_tokens) * p.kv_heads * p.head_dim;
}

template <int kCount>
__global__ void __launch_bounds__(kThreads) AppendKernel(AttentionParams p) {
  const int64_t row = blockIdx.x;
  const int32_t seq = SequenceOf(p.rows.row_start, p.rows.num_seqs, row);
  const int64_t at = KvOffset(p, seq, p.position[seq] + row - p.rows.row_start[seq]);
  const int64_t width = static_cast<int64_t>(p.kv_heads) * p.head_dim;
  for (int64_t i = threadIdx.x * kCount; i < width; i += kThreads * kCount) {
    float v[kCount];
    LoadActs(p.k.data, p.k.dtype, row * p.k_stride + i, v);
    StoreActs(p.kv.keys, p.kv.dtype, at + i, v);
    LoadActs(p.v.data, p.v.dtype, row * p.v_stride + i, v);
    StoreActs(p.kv.values, p.kv.dtype, at + i, v);
  }
}

// Of decode's chunks, by (sequence, head, chunk): the running maximum and sum, then the weighted
// sum of values.
struct Partials {
  float* top = nullptr;  // null: results are final
  float* sum = nullptr;
  float* values = nullptr;  // [.., head_dim]
  int64_t chunks = 0;       // room for each head

  __device__ int64_t Slot(const AttentionParams& p, int64_t seq, int64_t head,
                          int64_t chunk) const {
    return (seq * p.heads + head) * chunks + chunk;
  }
};

// Queries of a tile, of kQueries: query i is row i / group and head i % group of its sequence and
// key head.
struct Tile {
  int32_t seq;
  int64_t kv_head;
  int64_t first;       // of its queries
  int64_t queries;     // of the sequence and key head
  int64_t begin, end;  // keys

  __device__ int64_t Row(int64_t query, int64_t group) const { return (first + query) / group; }
  __device__ int64_t Head(int64_t query, int64_t group) const {
    return kv_head * group + (first + query) % group;
  }
};

struct Shared {
  float q[kMaxQueries][kMaxHeadDim];  // scaled
  float weight[kMaxQueries][kKeys];   // scores, then exponentials
  float rescale[kMaxQueries];
  float top[kMaxQueries], sum[kMaxQueries];
  int64_t offset[kKeys];  // of the keys at hand
};

// What a kernel is compiled for: elements that are loaded at once, the pages' type, queries a tile.
template <int kCountOf, class KvOf, int kQueriesOf>
struct Kind {
  static constexpr int kCount = kCountOf, kQueries = kQueriesOf;
  using Kv = KvOf;
};

template <class K>
__device__ void LoadQueries(const AttentionParams& p, const Tile& tile, Shared& shared) {
  constexpr int kCount = K::kCount, kQueries = K::kQueries;
  const int64_t group = p.heads / p.kv_heads;
  for (int i = static_cast<int>(threadIdx.x) * kCount; i < kQueries * p.head_dim;
       i += kThreads * kCount) {
    const int query = i / p.head_dim, channel = i % p.head_dim;
    float v[kCount] = {};
    if (tile.first + query < tile.queries) {
      const int64_t row = p.rows.row_start[tile.seq] + tile.Row(query, group);
      const int64_t at = row * p.q_stride + tile.Head(query, group) * p.head_dim + channel;
      LoadActs(p.q.data, p.q.dtype, at, v);
    }
#pragma unroll
    for (int j = 0; j < kCount; ++j) shared.q[query][channel + j] = v[j] * p.scale;
  }
  if (threadIdx.x < kQueries) {
    shared.top[threadIdx.x] = kLowest;
    shared.sum[threadIdx.x] = 0;
  }
}

// weight[query][key] of kKeys keys from `at`. Four lanes share a key; they add up what they have.
template <class K>
__device__ void Score(const AttentionParams& p, const Tile& tile, int64_t at, Shared& shared) {
  constexpr int kCount = K::kCount, kQueries = K::kQueries;
  const int key = static_cast<int>(threadIdx.x) / 4, part = static_cast<int>(threadIdx.x) % 4;
  const bool inside = at + key < tile.end;
  float sum[kQueries] = {};
  if (inside) {
    const int64_t from = KvOffset(p, tile.seq, at + key) + tile.kv_head * p.head_dim;
    if (part == 0) shared.offset[key] = from;
    const auto* keys = static_cast<const typename K::Kv*>(p.kv.keys) + from;
#pragma unroll 4
    for (int c = part * kCount; c < p.head_dim; c += 4 * kCount) {
      float k[kCount];
      LoadWide(keys + c, k);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
#pragma unroll
        for (int j = 0; j < kCount; ++j) sum[q] = fmaf(shared.q[q][c + j], k[j], sum[q]);
      }
    }
  }
  const int64_t group = p.heads / p.kv_heads, before = p.position[tile.seq];
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    sum[q] += __shfl_xor_sync(kAllLanes, sum[q], 1);
    sum[q] += __shfl_xor_sync(kAllLanes, sum[q], 2);
    const bool sees = inside && at + key <= before + tile.Row(q, group);
    if (part == q % 4) shared.weight[q][key] = sees ? sum[q] : kLowest;
  }
}

// The exponentials of warp's query, and what its sums so far must be multiplied by.
__device__ inline void Exponentials(int queries, Shared& shared) {
  const int query = static_cast<int>(threadIdx.x) / kWarp;
  if (query >= queries) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float& low = shared.weight[query][lane];
  float& high = shared.weight[query][lane + kWarp];
  const float old = shared.top[query], top = fmaxf(old, WarpMax(fmaxf(low, high)));
  // Nothing seen yet: everything stays zero. NaN scores are no maximum, but stay NaN below.
  const float base = top == kLowest ? 0 : top;
  low = expf(low - base);
  high = expf(high - base);
  const float sum = WarpSum(low + high);
  __syncwarp();
  if (lane == 0) {
    const float rescale = expf(old - base);
    shared.rescale[query] = rescale;
    shared.top[query] = top;
    shared.sum[query] = shared.sum[query] * rescale + sum;
  }
}

// Adds weight * value of kKeys keys from `at` that are this thread's: its channels, every
// `step`th key.
template <class K, int kCount, int kQueries>
__device__ void SumValues(const AttentionParams& p, const Tile& tile, int64_t at, int first,
                          int step, int channel, const Shared& shared,
                          float (&sum)[kQueries][kCount]) {
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) sum[q][j] *= shared.rescale[q];
  }
  const int count = static_cast<int>(min(int64_t{kKeys}, tile.end - at));
#pragma unroll 4
  for (int key = first; key < count; key += step) {
    float v[kCount];
    LoadWide(static_cast<const typename K::Kv*>(p.kv.values) + shared.offset[key] + channel, v);
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      const float weight = shared.weight[q][key];
      // A key that the query does not see counts nothing, even if its value is not finite.
#pragma unroll
      for (int j = 0; j < kCount; ++j) {
        sum[q][j] = weight == 0 ? sum[q][j] : fmaf(weight, v[j], sum[q][j]);
      }
    }
  }
}

template <int kCount>
__device__ void StoreResult(const AttentionParams& p, const Tile& tile, const Partials& partials,
                            int64_t chunk, int query, int channel, const Shared& shared,
                            float (&value)[kCount]) {
  if (tile.first + query >= tile.queries) return;
  const int64_t group = p.heads / p.kv_heads;
  const int64_t row = p.rows.row_start[tile.seq] + tile.Row(query, group);
  const int64_t head = tile.Head(query, group);
  if (partials.top == nullptr) {
#pragma unroll
    for (int j = 0; j < kCount; ++j) value[j] /= shared.sum[query];
    StoreActs(p.y.data, p.y.dtype, row * p.y_stride + head * p.head_dim + channel, value);
    return;
  }
  const int64_t slot = partials.Slot(p, tile.seq, head, chunk);
  if (channel == 0) {
    partials.top[slot] = shared.top[query];
    partials.sum[slot] = shared.sum[query];
  }
#pragma unroll
  for (int j = 0; j < kCount; ++j) partials.values[slot * p.head_dim + channel + j] = value[j];
}

// A tile's keys from tile.begin to tile.end.
template <class K>
__device__ void Attend(const AttentionParams& p, const Tile& tile, const Partials& partials,
                       int64_t chunk, Shared& shared) {
  constexpr int kCount = K::kCount, kQueries = K::kQueries;
  // [threads across keys, head_dim] of one query
  auto* const parts = static_cast<float*>(DynamicShared());
  const int across = static_cast<int>(CeilDiv(p.head_dim, kCount));
  const int step = kThreads / across, first = static_cast<int>(threadIdx.x) / across;
  const int channel = static_cast<int>(threadIdx.x) % across * kCount;
  LoadQueries<K>(p, tile, shared);
  float sum[kQueries][kCount] = {};
  __syncthreads();
  for (int64_t at = tile.begin; at < tile.end; at += kKeys) {
    Score<K>(p, tile, at, shared);
    __syncthreads();
    Exponentials(kQueries, shared);
    __syncthreads();
    if (first < step) SumValues<K>(p, tile, at, first, step, channel, shared, sum);
    __syncthreads();
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    if (first < step) {
#pragma unroll
      for (int j = 0; j < kCount; ++j) parts[first * p.head_dim + channel + j] = sum[q][j];
    }
    __syncthreads();
    if (first == 0) {
      float total[kCount] = {};
      for (int i = 0; i < step; ++i) {
#pragma unroll
        for (int j = 0; j < kCount; ++j) total[j] += parts[i * p.head_dim + channel + j];
      }
      StoreResult<kCount>(p, tile, partials, chunk, q, channel, shared, total);
    }
    __syncthreads();
  }
}

// Blocks: (tiles of a sequence and key head, key heads, sequences).
template <class K>
__global__ void __launch_bounds__(kThreads, 2) PrefillKernel(AttentionParams p) {
  __shared__ Shared shared;
  const int64_t group = p.heads / p.kv_heads;
  Tile tile;
  tile.seq = static_cast<int32_t>(blockIdx.z);
  tile.kv_head = blockIdx.y;
  // Later rows have more to do: they start first.
  tile.first = static_cast<int64_t>(gridDim.x - 1 - blockIdx.x) * K::kQueries;
  tile.queries = (p.rows.row_start[tile.seq + 1] - p.rows.row_start[tile.seq]) * group;
  if (tile.first >= tile.queries) return;
  const int64_t last = min(tile.first + K::kQueries, tile.queries) - 1;
  tile.begin = 0;
  tile.end = p.position[tile.seq] + last / group + 1;
  Attend<K>(p, tile, Partials(), 0, shared);
}

// Blocks: (chunks, tiles of a key head's group, sequences). One row a sequence, or none.
template <class K>
__global__ void __launch_bounds__(kThreads, 2) DecodeKernel(AttentionParams p, Partials partials) {
  __shared__ Shared shared;
  const int64_t group = p.heads / p.kv_heads, tiles = CeilDiv(group, K::kQueries);
  Tile tile;
  tile.seq = static_cast<int32_t>(blockIdx.z);
  tile.kv_head = blockIdx.y / tiles;
  tile.first = blockIdx.y % tiles * K::kQueries;
  tile.queries = (p.rows.row_start[tile.seq + 1] - p.rows.row_start[tile.seq]) * group;
  const int64_t context = p.position[tile.seq] + 1, keys = ChunkKeys(context);
  tile.begin = static_cast<int64_t>(blockIdx.x) * keys;
  tile.end = min(tile.begin + keys, context);
  if (tile.queries == 0 || tile.begin >= tile.end) return;
  Attend<K>(p, tile, partials, blockIdx.x, shared);
}

// Adds up a head's chunks. Blocks: (heads, sequences); a thread has one channel.
__global__ void __launch_bounds__(kMaxHeadDim) CombineKernel(AttentionParams p, Partials partials) {
  const int64_t head = blockIdx.x, seq = blockIdx.y;
  const int64_t row = p.rows.row_start[seq], channel = threadIdx.x;
  if (p.rows.row_start[seq + 1] == row || channel >= p.head_dim) return;
  const int64_t context = p.position[seq] + 1, chunks = CeilDiv(context, ChunkKeys(context));
  const int64_t slot = partials.Slot(p, seq, head, 0);
  float top = kLowest;
  for (int64_t i = 0; i < chunks; ++i) top = fmaxf(top, partials.top[slot + i]);
  if (top == kLowest) top = 0;
  float sum = 0, value = 0;
  for (int64_t i = 0; i < chunks; ++i) {
    const float scale = expf(partials.top[slot + i] - top);
    sum += scale * partials.sum[slot + i];
    value += scale * partials.values[(slot + i) * p.head_dim + channel];
  }
  const float out[1] = {value / sum};
  StoreActs(p.y.data, p.y.dtype, row * p.y_stride + head * p.head_dim + channel, out);
}

absl::Status Check(const AttentionParams& p) {
  if (p.heads <= 0 || p.kv_heads <= 0 || p.heads % p.kv_heads != 0 || p.head_dim <= 0 ||
      p.head_dim > kMaxHeadDim || p.kv.page_tokens <= 0) {
    return Require(false, "Attention",
                   "bad heads, kv_heads, head_dim (at most 256) or page_tokens");
  }
  const int64_t kv_width = static_cast<int64_t>(p.kv_heads) * p.head_dim;
  const int64_t width = static_cast<int64_t>(p.heads) * p.head_dim;
  const bool strides = p.q_stride >= width && p.y_stride >= width && p.k_stride >= kv_width &&
                       p.v_stride >= kv_width && p.kv.page_stride >= kv_width * p.kv.page_tokens;
  const bool arrays = p.rows.row_start && p.position && p.q.data && p.k.data && p.v.data &&
                      p.y.data && p.kv.keys && p.kv.values && p.kv.pages && p.kv.page_start;
  if (!strides || !arrays) return Require(false, "Attention", "missing array or short stride");
  const bool counts = p.rows.num_seqs > 0 && p.rows.num_seqs <= 65535 && p.rows.longest > 0 &&
                      p.max_context >= p.rows.longest &&
                      p.max_context <= std::numeric_limits<int32_t>::max();
  return Require(counts, "Attention", "num_seqs, longest or max_context out of range");
}

bool AllVectors(const AttentionParams& p) {
  return p.head_dim % kVector == 0 && TakesVectors(p.q.data, p.q_stride) &&
         TakesVectors(p.k.data, p.k_stride) && TakesVectors(p.v.data, p.v_stride) &&
         TakesVectors(p.y.data, p.y_stride) && TakesVectors(p.kv.keys, p.kv.page_stride) &&
         IsAligned(p.kv.values);
}

absl::StatusOr<Partials> PartialsIn(const AttentionParams& p, const Launch& launch) {
  Partials partials;
  partials.chunks = std::min<int64_t>(kMaxChunks, CeilDiv(p.max_context, kMinChunk));
  const int64_t slots = partials.chunks * p.rows.num_seqs * p.heads;
  const absl::StatusOr<void*> scratch =
      launch.cuda->Scratch(static_cast<size_t>(slots * (p.head_dim + 2)) * sizeof(float));
  if (!scratch.ok()) return scratch.status();
  partials.top = static_cast<float*>(*scratch);
  partials.sum = partials.top + slots;
  partials.values = partials.sum + slots;
  return partials;
}

// At most one element a thread and channel for every key they share out.
template <class K>
constexpr size_t kParts = kThreads* K::kCount * sizeof(float);

template <class K>
absl::Status Decode(const AttentionParams& p, const Launch& launch) {
  const cudaStream_t stream = launch.cuda->stream();
  const absl::StatusOr<Partials> partials = PartialsIn(p, launch);
  if (!partials.ok()) return partials.status();
  const int64_t tiles = CeilDiv(p.heads / p.kv_heads, K::kQueries);
  const auto seqs = static_cast<unsigned>(p.rows.num_seqs);
  const dim3 grid(static_cast<unsigned>(partials->chunks),
                  static_cast<unsigned>(p.kv_heads * tiles), seqs);
  StartOn(stream, DecodeKernel<K>, grid, kThreads, kParts<K>, p, *partials);
  StartOn(stream, CombineKernel, dim3(static_cast<unsigned>(p.heads), seqs), kMaxHeadDim, 0, p,
          *partials);
  return LaunchStatus("Attention, decode");
}

template <class K>
absl::Status Prefill(const AttentionParams& p, const Launch& launch) {
  const int64_t queries = int64_t{p.rows.longest} * (p.heads / p.kv_heads);
  const dim3 grid(static_cast<unsigned>(CeilDiv(queries, K::kQueries)),
                  static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(p.rows.num_seqs));
  StartOn(launch.cuda->stream(), PrefillKernel<K>, grid, kThreads, kParts<K>, p);
  return LaunchStatus("Attention, prefill");
}

template <int kCount, class Kv>
absl::Status Run(const AttentionParams& p, const Launch& launch) {
  StartOn(launch.cuda->stream(), AppendKernel<kCount>, static_cast<unsigned>(p.rows.num_rows()),
          kThreads, 0, p);
  if (p.rows.longest == 1) {
    return p.heads / p.kv_heads <= 4 ? Decode<Kind<kCount, Kv, 4>>(p, launch)
                                     : Decode<Kind<kCount, Kv, 8>>(p, launch);
  }
  return FitsPrefillAttention(p) ? PrefillAttention(p, launch)
                                 : Prefill<Kind<kCount, Kv, 8>>(p, launch);
}

template <int kCount>
absl::Status RunPages(const AttentionParams& p, const Launch& launch) {
  return p.kv.dtype == DType::kFloat32 ? Run<kCount, float>(p, launch)
                                       : Run<kCount, Bf16>(p, launch);
}

}  // namespace

absl::Status Attention(const AttentionParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "Attention"); !s.ok()) return s;
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status s = Check(p); !s.ok()) return s;
  return AllVectors(p) ? RunPages<kVector>(p, launch) : RunPages<1>(p, launch);
}

}  // namespace anabranch::kernels::cuda
