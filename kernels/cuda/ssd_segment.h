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
  Acts kept;  // float32 [checkpoints of the launch, heads, P, N]: those that are to be packed
};

// S before each chunk, and the last S of each sequence into its slot; checkpoints on the way.
absl::Status RunStates(const SsdScanParams& p, const Segment& segment, const Launch& launch);
// y, with `beside` on the context's second stream.
absl::Status RunOutputs(const SsdScanParams& p, const Segment& segment, bool beside,
                        const Launch& launch);
// Checkpoints that States has left to be packed; `beside` as above.
absl::Status RunPack(const SsdScanParams& p, const Segment& segment, bool beside,
                     const Launch& launch);
// Shared memory of a block of States and of Outputs, at most.
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

// Copies of kChunk rows of kWidth bfloat16 into shared memory, rows 8 elements further apart there
// than they are wide, so that matrices of 8 rows meet all banks once. What depends on the thread
// alone is worked out once: of the instructions of a walk half were such arithmetic before.
template <int kWidth>
class RowsCopy {
 public:
  // From `first` on, `column` into the rows.
  __device__ RowsCopy(const ConstActs& acts, int64_t first, int64_t stride, int64_t column)
      : row_(static_cast<int>(threadIdx.x) / kPieces),
        piece_(static_cast<int>(threadIdx.x) % kPieces * 8),
        stride_(stride),
        from_(static_cast<const Bf16*>(acts.data) + (first + row_) * stride + column + piece_) {}

  // What is copied next lies `elements` further.
  __device__ void Advance(int64_t elements) { from_ += elements; }
  // Rows from `rows` on become zeros.
  __device__ void Copy(int32_t rows, Bf16 (*to)[kWidth + 8]) const {
    const Bf16* from = from_;
    if (rows == kChunk) {
#pragma unroll
      for (int i = 0; i < kChunk; i += kApart, from += kApart * stride_) {
        CopyAsync(&to[row_ + i][piece_], from);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < kChunk; i += kApart, from += kApart * stride_) {
      const bool valid = row_ + i < rows;
      CopyAsync(&to[row_ + i][piece_], valid ? from : from_ - row_ * stride_, valid);
    }
  }

 private:
  static constexpr int kPieces = kWidth / 8, kApart = kChunkThreads / kPieces;
  const int row_, piece_;
  const int64_t stride_;
  const Bf16* from_;
};

// kBytes, a multiple of 16, by the threads from `first` on.
template <int kBytes>
__device__ inline void CopyBytes(const void* from, void* to, int first = 0) {
  constexpr int kPieces = kBytes / 16;
#pragma unroll
  for (int i = 0; i < kPieces; i += kChunkThreads) {
    const int at = i + static_cast<int>(threadIdx.x) - first;
    if (kPieces % kChunkThreads != 0 && (at < 0 || at >= kPieces)) continue;
    CopyAsync(static_cast<uint4*>(to) + at, static_cast<const uint4*>(from) + at);
  }
}

}  // namespace anabranch::kernels::cuda
