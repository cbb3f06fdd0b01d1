// Row-wise helpers. Each moves every byte once, and that is all its time: Embed and CopyRows 1 read
// and 1 write an element, GatedMul 2 and 1, AddScaled 2 and 1. So threads take 16 bytes at a time
// where pointers, strides and the width allow, and single elements otherwise. The dtypes of inputs
// and outputs are looked at at run time, alike by all threads, so that one kernel serves all
// mixtures.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Op::operator()<kCount>(row, column) for every kCount columns of every row. Rows are spread over
// blockIdx.x and threadIdx.y, columns over the rest.
template <int kCount, class Op>
__global__ void __launch_bounds__(kThreads) RowsKernel(int64_t rows, int64_t width, Op op) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= rows) return;
  const int64_t step = static_cast<int64_t>(gridDim.y) * blockDim.x * kCount;
  int64_t column = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * kCount;
  for (; column < width; column += step) op.template Run<kCount>(row, column);
}

template <class Op>
absl::Status LaunchRows(int64_t rows, int64_t width, bool vectors, const Op& op,
                        const Launch& launch, const char* what) {
  const int64_t items = CeilDiv(width, vectors ? kVector : 1);
  unsigned across = kWarp;
  while (across < kThreads && across < items) across *= 2;
  const dim3 block(across, kThreads / across);
  const dim3 grid(static_cast<unsigned>(CeilDiv(rows, block.y)),
                  static_cast<unsigned>(std::min<int64_t>(CeilDiv(items, across), 1024)));
  if (vectors) {
    StartOn(launch.cuda->stream(), RowsKernel<kVector, Op>, grid, block, 0, rows, width, op);
  } else {
    StartOn(launch.cuda->stream(), RowsKernel<1, Op>, grid, block, 0, rows, width, op);
  }
  return LaunchStatus(what);
}

struct EmbedOp {
  EmbedParams p;
  template <int kCount>
  __device__ void Run(int64_t row, int64_t column) const {
    float v[kCount];
    LoadActs(p.table, p.dtype, p.ids[row] * p.width + column, v);
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] *= p.scale;
    StoreActs(p.y.data, p.y.dtype, row * p.width + column, v);
  }
};

__device__ inline float Activate(Activation activation, float x) {
  if (activation == Activation::kSilu) return x / (1 + expf(-x));
  if (activation == Activation::kGelu) return x * normcdff(x);
  const float positive = x < 0 ? 0 : x;  // NaN stays NaN
  return positive * positive;
}

struct GatedMulOp {
  GatedMulParams p;
  template <int kCount>
  __device__ void Run(int64_t row, int64_t column) const {
    float v[kCount];
    const int64_t at = row * p.in_stride + column;
    LoadActs(p.gate.data, p.gate.dtype, at, v);
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = Activate(p.activation, v[i]);
    if (p.up.data != nullptr) {
      float up[kCount];
      LoadActs(p.up.data, p.up.dtype, at, up);
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] *= up[i];
    }
    StoreActs(p.y.data, p.y.dtype, row * p.y_stride + column, v);
  }
};

struct AddScaledOp {
  AddScaledParams p;
  template <int kCount>
  __device__ void Run(int64_t row, int64_t column) const {
    float x[kCount], y[kCount];
    LoadActs(p.x.data, p.x.dtype, row * p.x_stride + column, x);
    LoadActs(p.y.data, p.y.dtype, row * p.y_stride + column, y);
#pragma unroll
    for (int i = 0; i < kCount; ++i) x[i] += __fmul_rn(p.scale, y[i]);  // two roundings, as the CPU
    StoreActs(p.x.data, p.x.dtype, row * p.x_stride + column, x);
  }
};

struct ScaleOp {
  ScaleParams p;
  template <int kCount>
  __device__ void Run(int64_t row, int64_t column) const {
    float x[kCount];
    LoadActs(p.x.data, p.x.dtype, row * p.x_stride + column, x);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      x[i] *= p.columns == nullptr ? p.scale : p.scale * p.columns[column + i];
    }
    StoreActs(p.y.data, p.y.dtype, row * p.y_stride + column, x);
  }
};

struct CopyRowsOp {
  CopyRowsParams p;
  template <int kCount>
  __device__ void Run(int64_t row, int64_t column) const {
    float v[kCount];
    const int64_t from = p.row == nullptr ? row : p.row[row];
    LoadActs(p.x.data, p.x.dtype, from * p.x_stride + column, v);
    StoreActs(p.y.data, p.y.dtype, row * p.y_stride + column, v);
  }
};

// Sums of directions. A sequence's rows are cut into chunks of kChunkRows from its first row here,
// whatever else is in the launch: a chunk's sum adds its rows in order, and a second kernel the
// chunks' sums, so results are the same each time. The rows are read twice, the second time from
// the cache where they fit: 2 x 131,072 x 2,560 bfloat16 are 1.3 GB, 0.3 ms.
constexpr int64_t kChunkRows = 256;

// scales[row] = 1 / |row|: one warp a row.
__global__ void __launch_bounds__(kThreads)
    DirectionScales(ConstActs x, int64_t rows, int64_t width, float* scales) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  if (row >= rows) return;
  float square = 0;
  for (int64_t i = threadIdx.x % kWarp; i < width; i += kWarp) {
    float v[1];
    LoadActs(x.data, x.dtype, row * width + i, v);
    square += v[0] * v[0];
  }
  square = WarpSum(square);
  if (threadIdx.x % kWarp == 0) scales[row] = 1 / sqrtf(square + 1e-12f);
}

// The rows of all sequences' chunks, chunk after chunk: where chunk `chunk` of `seq` is.
__device__ inline int64_t ChunkSlot(const PackedRows& rows, int64_t seq, int64_t chunk) {
  return rows.row_start[seq] / kChunkRows + seq + chunk;
}

// A column's sum over one chunk: into sums if a sequence has only one, otherwise into partials.
__global__ void __launch_bounds__(kThreads)
    SumChunks(SumDirectionsParams p, const float* scales, bool direct, float* partials) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t seq = blockIdx.y, chunk = blockIdx.z;
  const int64_t begin = p.rows.row_start[seq] + chunk * kChunkRows;
  const int64_t end = min(begin + kChunkRows, static_cast<int64_t>(p.rows.row_start[seq + 1]));
  if (column >= p.width || begin >= end) return;
  float sum = direct ? p.sums[seq * p.width + column] : 0;
#pragma unroll 8
  for (int64_t row = begin; row < end; ++row) {
    float v[1];
    LoadActs(p.x.data, p.x.dtype, row * p.width + column, v);
    sum += scales[row] * v[0];
  }
  if (direct) {
    p.sums[seq * p.width + column] = sum;
  } else {
    partials[ChunkSlot(p.rows, seq, chunk) * p.width + column] = sum;
  }
}

// The sums as they are after a checkpoint's row, from the ones before the launch: as if the rows
// ended there. Blocks: (columns, checkpoints). After SumChunks if there are partials, else before.
__global__ void __launch_bounds__(kThreads)
    KeepSums(SumDirectionsParams p, const float* scales, bool direct, const float* partials) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= p.width) return;
  const int64_t last = p.checkpoints.row[blockIdx.y];
  int64_t seq = 0;
  while (p.rows.row_start[seq + 1] <= last) ++seq;
  const int64_t begin = p.rows.row_start[seq], whole = (last - begin) / kChunkRows;
  float sum = p.sums[seq * p.width + column];
  for (int64_t chunk = 0; chunk < whole; ++chunk) {
    sum += partials[ChunkSlot(p.rows, seq, chunk) * p.width + column];
  }
  float partial = direct ? sum : 0;
  for (int64_t row = begin + whole * kChunkRows; row <= last; ++row) {
    float v[1];
    LoadActs(p.x.data, p.x.dtype, row * p.width + column, v);
    partial += scales[row] * v[0];
  }
  p.checkpoint_sums[blockIdx.y * p.width + column] = direct ? partial : sum + partial;
}

__global__ void __launch_bounds__(kThreads)
    AddChunks(SumDirectionsParams p, const float* partials) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t seq = blockIdx.y;
  const int64_t rows = p.rows.row_start[seq + 1] - p.rows.row_start[seq];
  if (column >= p.width) return;
  float sum = p.sums[seq * p.width + column];
  for (int64_t chunk = 0; chunk * kChunkRows < rows; ++chunk) {
    sum += partials[ChunkSlot(p.rows, seq, chunk) * p.width + column];
  }
  p.sums[seq * p.width + column] = sum;
}

}  // namespace

absl::Status Embed(const EmbedParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "Embed"); !s.ok()) return s;
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok =
      p.rows > 0 && p.width > 0 && p.ids != nullptr && p.table != nullptr && p.y.data != nullptr;
  if (!ok) return Require(false, "Embed", "negative size or a missing array");
  const bool vectors = TakesVectors(p.table, p.width) && TakesVectors(p.y.data, p.width);
  return LaunchRows(p.rows, p.width, vectors, EmbedOp{p}, launch, "Embed");
}

absl::Status GatedMul(const GatedMulParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "GatedMul"); !s.ok()) return s;
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.gate.data != nullptr && p.y.data != nullptr &&
                  p.in_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "GatedMul", "negative size, missing array or short stride");
  const bool vectors = p.width % kVector == 0 && TakesVectors(p.gate.data, p.in_stride) &&
                       IsAligned(p.up.data) && TakesVectors(p.y.data, p.y_stride);
  return LaunchRows(p.rows, p.width, vectors, GatedMulOp{p}, launch, "GatedMul");
}

absl::Status AddScaled(const AddScaledParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "AddScaled"); !s.ok()) return s;
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.x.data != nullptr && p.y.data != nullptr &&
                  p.x_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "AddScaled", "negative size, missing array or short stride");
  const bool vectors = p.width % kVector == 0 && TakesVectors(p.x.data, p.x_stride) &&
                       TakesVectors(p.y.data, p.y_stride);
  return LaunchRows(p.rows, p.width, vectors, AddScaledOp{p}, launch, "AddScaled");
}

absl::Status Scale(const ScaleParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "Scale"); !s.ok()) return s;
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.x.data != nullptr && p.y.data != nullptr &&
                  p.x_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "Scale", "negative size, missing array or short stride");
  const bool vectors = p.width % kVector == 0 && TakesVectors(p.x.data, p.x_stride) &&
                       TakesVectors(p.y.data, p.y_stride);
  return LaunchRows(p.rows, p.width, vectors, ScaleOp{p}, launch, "Scale");
}

absl::Status CopyRows(const CopyRowsParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, false, "CopyRows"); !s.ok()) return s;
  if (p.rows == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.rows > 0 && p.width > 0 && p.x.data != nullptr && p.y.data != nullptr &&
                  p.x_stride >= p.width && p.y_stride >= p.width;
  if (!ok) return Require(false, "CopyRows", "negative size, missing array or short stride");
  const bool vectors = p.width % kVector == 0 && TakesVectors(p.x.data, p.x_stride) &&
                       TakesVectors(p.y.data, p.y_stride);
  return LaunchRows(p.rows, p.width, vectors, CopyRowsOp{p}, launch, "CopyRows");
}

absl::Status SumDirections(const SumDirectionsParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, false, "SumDirections"); !s.ok()) return s;
  if (p.rows.num_rows() == 0 || p.width == 0) return absl::OkStatus();
  const bool ok = p.width > 0 && p.x.data != nullptr && p.sums != nullptr &&
                  p.rows.row_start != nullptr && p.rows.num_seqs > 0 && p.rows.longest > 0 &&
                  (p.checkpoints.count == 0 || p.checkpoint_sums != nullptr);
  if (!ok) return Require(false, "SumDirections", "negative size or a missing array");
  const int64_t rows = p.rows.num_rows(), chunks = CeilDiv(p.rows.longest, kChunkRows);
  const int64_t slots = chunks == 1 ? 0 : rows / kChunkRows + p.rows.num_seqs + 1;
  const absl::StatusOr<void*> scratch =
      launch.cuda->Scratch(static_cast<size_t>(rows + slots * p.width) * sizeof(float));
  if (!scratch.ok()) return scratch.status();
  auto* scales = static_cast<float*>(*scratch);
  float* partials = scales + rows;
  const cudaStream_t stream = launch.cuda->stream();
  const auto warps = static_cast<unsigned>(CeilDiv(rows, kThreads / kWarp));
  StartOn(stream, DirectionScales, warps, kThreads, 0, p.x, rows, p.width, scales);
  const auto across = static_cast<unsigned>(CeilDiv(p.width, kThreads));
  const auto seqs = static_cast<unsigned>(p.rows.num_seqs);
  const bool direct = chunks == 1;
  const auto keep = [&] {
    const auto checkpoints = static_cast<unsigned>(p.checkpoints.count);
    if (checkpoints == 0) return;
    StartOn(stream, KeepSums, dim3(across, checkpoints), kThreads, 0, p, scales, direct, partials);
  };
  if (direct) keep();
  StartOn(stream, SumChunks, dim3(across, seqs, static_cast<unsigned>(chunks)), kThreads, 0, p,
          scales, direct, partials);
  if (!direct) keep();
  if (chunks > 1) StartOn(stream, AddChunks, dim3(across, seqs), kThreads, 0, p, partials);
  return LaunchStatus("SumDirections");
}

}  // namespace anabranch::kernels::cuda
