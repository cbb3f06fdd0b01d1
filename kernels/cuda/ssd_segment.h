// What the kernels of the chunked scan share (ssd_chunked.cu explains them): where the chunks of a
// segment and the arrays between the kernels lie, and how operands come into shared memory. Only
// .cu files include it.
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/ssd_scan.h"

namespace anabranch::kernels::cuda {

inline constexpr int kChunk = 128;         // Q
inline constexpr int kChunkThreads = 256;  // of States and Outputs

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

// S before each chunk, and the last S of each sequence into its slot; checkpoints on the way.
absl::Status RunStates(const SsdScanParams& p, const Segment& segment, const Launch& launch);
// y.
absl::Status RunOutputs(const SsdScanParams& p, const Segment& segment, const Launch& launch);
// Shared memory of a block of either, at most.
size_t StatesSharedBytes();
size_t OutputsSharedBytes();

struct ChunkRows {
  int64_t first = 0;
  int32_t rows = 0;  // none: no such chunk
};

__device__ inline ChunkRows RowsOf(const PackedRows& rows, const Segment& segment, int32_t id) {
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
  for (int i = threadIdx.x; i < kChunk * kPieces; i += kChunkThreads) {
    const int r = i / kPieces, piece = i % kPieces;
    const bool valid = r < rows;
    CopyAsync(&to[r][piece * 8], data + (valid ? r * stride : 0) + piece * 8, valid);
  }
}

// Up to `count` multiples of 16 bytes.
__device__ inline void CopyArray(const void* from, int count, void* to) {
  for (int i = threadIdx.x; i < count; i += kChunkThreads) {
    CopyAsync(static_cast<uint4*>(to) + i, static_cast<const uint4*>(from) + i, true);
  }
}

}  // namespace anabranch::kernels::cuda
