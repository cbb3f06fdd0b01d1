// One pass over the embeddings for every four queries: 1,000,000 x 1,024 in 16 bits are 2.05 GB,
// 0.5 ms at the speed of memory, and the rest must stay small beside it. A warp takes two
// embeddings at once, 16 bytes a lane and load, so that a query's numbers, which come from shared
// memory, serve both. A score leaves as a 64-bit key that orders as wanted: score, then lower
// index.
//
// The best are found by sorting blocks of 4,096 keys in shared memory and keeping the first `limit`
// of each, until one block is left: for the million 245 blocks, then 4 for 16,384 keys and so on.
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/search.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kQueries = 4;  // of one pass
constexpr int kRows = 2;     // embeddings that a warp takes at once
constexpr int kMaxWidth = 8192;

constexpr int kSortThreads = 1024;
constexpr int kSortKeys = 4096;
static_assert(kSortKeys > kMaxSearchResults);

// Ascending as the float; 0 for NaN, below all others.
__device__ inline uint32_t Ordered(float v) {
  if (isnan(v)) return 0;
  const uint32_t bits = __float_as_uint(v);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float FromOrdered(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}
__device__ inline uint64_t MakeKey(float score, int64_t index) {
  const uint32_t ordered = Ordered(score);
  if (ordered == 0) return 0;
  return (static_cast<uint64_t>(ordered) << 32) | (0xFFFFFFFFu - static_cast<uint32_t>(index));
}

__device__ inline void Load(const float* from, float (&out)[8]) { LoadWide(from, out); }
__device__ inline void Load(const Bf16* from, float (&out)[8]) { LoadWide(from, out); }
__device__ inline void Load(const __half* from, float (&out)[8]) {
  const auto pack = *reinterpret_cast<const Pack<__half, 8>*>(from);
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = __half2float(pack.v[i]);
}

// keys [queries, count] of `queries` <= kQueries queries. Dynamic shared memory: [queries, width].
template <class T>
__global__ void __launch_bounds__(kThreads)
    ScanKernel(SearchParams p, int32_t first, int32_t queries, uint64_t* keys) {
  auto* const query = static_cast<float*>(DynamicShared());
  __shared__ float offset[kQueries];  // query . mean
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto width = static_cast<int>(p.width);
  for (int i = static_cast<int>(threadIdx.x); i < kQueries * width; i += kThreads) {
    query[i] = i < queries * width ? p.queries[static_cast<int64_t>(first) * width + i] : 0;
  }
  __syncthreads();
  if (warp < kQueries) {
    float sum = 0;
    for (int i = lane; p.mean != nullptr && i < width; i += kWarp) {
      sum = fmaf(query[warp * width + i], p.mean[i], sum);
    }
    sum = WarpSum(sum);
    if (lane == 0) offset[warp] = sum;
  }
  __syncthreads();
  const auto* embeddings = static_cast<const T*>(p.embeddings);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kWarps * kRows;
  for (int64_t row = (static_cast<int64_t>(blockIdx.x) * kWarps + warp) * kRows; row < p.count;
       row += step) {
    float sum[kRows][kQueries] = {};
    const T* at[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) at[r] = embeddings + min(row + r, p.count - 1) * p.row_stride;
#pragma unroll 2
    for (int i = lane * 8; i < width; i += kWarp * 8) {
      float v[kRows][8];
#pragma unroll
      for (int r = 0; r < kRows; ++r) Load(at[r] + i, v[r]);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        if (q >= queries) break;
        float in[8];
        LoadWide(query + q * width + i, in);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int j = 0; j < 8; ++j) sum[r][q] = fmaf(v[r][j], in[j], sum[r][q]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t index = row + r;
      bool wanted = index < p.count;
      if (wanted && p.wanted != nullptr) wanted = (p.wanted[index / 32] >> (index % 32) & 1) != 0;
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        if (q >= queries) break;
        const float score = WarpSum(sum[r][q]) - offset[q];
        if (lane == 0 && index < p.count) {
          keys[q * p.count + index] = wanted ? MakeKey(score, index) : 0;
        }
      }
    }
  }
}

// Keys of [queries, count] in blocks of kSortKeys: each block's `keep` largest, descending, to
// [queries, blocks, keep]. Blocks: (blocks, queries).
__global__ void __launch_bounds__(kSortThreads)
    SortKernel(const uint64_t* keys, int64_t count, int32_t keep, uint64_t* best) {
  __shared__ uint64_t sorted[kSortKeys];
  const uint64_t* from = keys + static_cast<int64_t>(blockIdx.y) * count;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSortKeys;
  for (int i = static_cast<int>(threadIdx.x); i < kSortKeys; i += kSortThreads) {
    sorted[i] = first + i < count ? from[first + i] : 0;
  }
  // Bitonic, descending.
  for (int size = 2; size <= kSortKeys; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < kSortKeys / 2; i += kSortThreads) {
        const int low = 2 * i - (i & (stride - 1)), high = low + stride;
        const bool descending = (low & size) == 0;
        const uint64_t a = sorted[low], b = sorted[high];
        if ((a < b) == descending) {
          sorted[low] = b;
          sorted[high] = a;
        }
      }
    }
  }
  __syncthreads();
  uint64_t* to = best + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * keep;
  for (int i = static_cast<int>(threadIdx.x); i < keep; i += kSortThreads) to[i] = sorted[i];
}

__global__ void ResultKernel(const uint64_t* best, SearchParams p, int32_t first) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= p.limit) return;
  const int64_t query = blockIdx.y;
  const uint64_t key = best[query * p.limit + i];
  const int64_t to = (first + query) * p.limit + i;
  p.scores[to] = key == 0 ? 0 : FromOrdered(static_cast<uint32_t>(key >> 32));
  p.index[to] = key == 0 ? -1 : static_cast<int64_t>(0xFFFFFFFFu - static_cast<uint32_t>(key));
}

template <class T>
absl::Status ScanAs(const SearchParams& p, int32_t first, int32_t queries, uint64_t* keys,
                    const Launch& launch) {
  const size_t shared = static_cast<size_t>(kQueries * p.width) * sizeof(float);
  const int64_t blocks = std::min<int64_t>(CeilDiv(p.count, kWarps * kRows),
                                           int64_t{16} * launch.cuda->multiprocessors());
  return Start(launch, "Search, scan", ScanKernel<T>, static_cast<unsigned>(blocks), kThreads,
               shared, p, first, queries, keys);
}

absl::Status Scan(const SearchParams& p, int32_t first, int32_t queries, uint64_t* keys,
                  const Launch& launch) {
  if (p.count == 0) return absl::OkStatus();
  switch (p.dtype) {
    case EmbeddingDType::kFloat32:
      return ScanAs<float>(p, first, queries, keys, launch);
    case EmbeddingDType::kBFloat16:
      return ScanAs<Bf16>(p, first, queries, keys, launch);
    case EmbeddingDType::kFloat16:
      return ScanAs<__half>(p, first, queries, keys, launch);
  }
  return Require(false, "Search", "unknown dtype");
}

absl::Status Check(const SearchParams& p) {
  const int64_t size = p.dtype == EmbeddingDType::kFloat32 ? 4 : 2;
  const bool sizes = p.num_queries >= 0 && p.count >= 0 && p.count <= int64_t{0xFFFFFFFF} &&
                     p.width > 0 && p.width % 8 == 0 && p.width <= kMaxWidth && p.limit > 0 &&
                     p.limit <= kMaxSearchResults && p.row_stride >= p.width;
  if (!sizes) return Require(false, "Search", "a size out of range, or a width not divisible by 8");
  if (p.num_queries == 0) return absl::OkStatus();
  const bool arrays = p.queries && (p.embeddings || p.count == 0) && p.scores && p.index &&
                      IsAligned(p.embeddings) && p.row_stride * size % 16 == 0;
  return Require(arrays, "Search", "missing array, or rows not aligned to 16 bytes");
}

}  // namespace

absl::Status Search(const SearchParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, false, "Search"); !s.ok()) return s;
  if (absl::Status s = Check(p); !s.ok()) return s;
  const cudaStream_t stream = launch.cuda->stream();
  const int64_t blocks = std::max<int64_t>(1, CeilDiv(p.count, kSortKeys));
  const absl::StatusOr<void*> scratch = launch.cuda->Scratch(
      static_cast<size_t>(kQueries * (p.count + 2 * blocks * p.limit)) * sizeof(uint64_t));
  if (!scratch.ok()) return scratch.status();
  auto* keys = static_cast<uint64_t*>(*scratch);
  uint64_t* best[2] = {keys + kQueries * p.count, keys + kQueries * (p.count + blocks * p.limit)};
  for (int32_t first = 0; first < p.num_queries; first += kQueries) {
    const int32_t queries = std::min(kQueries, p.num_queries - first);
    if (absl::Status s = Scan(p, first, queries, keys, launch); !s.ok()) return s;
    const uint64_t* from = keys;
    int64_t count = p.count;
    for (int round = 0; round == 0 || count > p.limit; ++round) {
      const int64_t parts = std::max<int64_t>(1, CeilDiv(count, kSortKeys));
      const dim3 grid(static_cast<unsigned>(parts), static_cast<unsigned>(queries));
      StartOn(stream, SortKernel, grid, kSortThreads, 0, from, count, p.limit, best[round % 2]);
      from = best[round % 2];
      count = parts * p.limit;
    }
    const dim3 grid(static_cast<unsigned>(CeilDiv(p.limit, kThreads)),
                    static_cast<unsigned>(queries));
    StartOn(stream, ResultKernel, grid, kThreads, 0, from, p, first);
  }
  return LaunchStatus("Search");
}

}  // namespace anabranch::kernels::cuda
