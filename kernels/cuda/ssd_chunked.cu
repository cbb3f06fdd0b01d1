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
//            A checkpoint at the end of a chunk is S itself; inside one it takes a product of its
//            own, of the rows up to it, so that chunks and with them all bits stay what they are.
//            Passing S in registers saves the round trip of one float32 state a chunk and head
//            through memory, which at Q = 128 would be more bytes than x and y together.
//   Outputs  one block a chunk and some heads of a group. C B^T is computed once for them and stays
//            in registers, where the accumulators of one product are the operand of the next. A
//            warp has 16 rows; those before its 16 x 16 diagonal block share one factor a column,
//            so that exponentials are needed for the diagonal alone.
// S before each chunk lies in scratch; chunks are done in segments to bound it. States of a segment
// and Outputs of the one before run beside each other.
//
// Operations for a token and head of P x N, Q = 128, k heads a block: 2 Q N / 2 / k (C B^T,
// causal), Q P (its product with x, causal), 2 P N (C S), 2 P N (States): 42 thousand at 64 x 128,
// 0.44 TFLOP for 131,072 tokens of 80 heads. Bytes for a token: 2 P of x twice, 2 P of y, 2 * 2 P N
// / Q of S a head; B and C come from cache: 51 KB at 80 heads, 6.7 GB for 131,072 tokens, 1.6 ms at
// 4.2 TB/s if none of S stayed in the cache.
#include <algorithm>
#include <limits>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/ssd_chunked.h"
#include "kernels/cuda/ssd_segment.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr size_t kMostScratch = size_t{192} << 20;
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

// With `beside` what follows waits for the outputs of the segment before, and not for its own.
absl::Status RunSegment(const SsdScanParams& p, const Segment& segment, bool beside,
                        const Launch& launch) {
  CudaContext& cuda = *launch.cuda;
  const dim3 grid(static_cast<unsigned>(segment.count),
                  static_cast<unsigned>(CeilDiv(p.heads, kPrepareHeads)));
  absl::Status s = Start(launch, "SsdScan", Prepare, grid, kPrepareThreads, 0, p, segment);
  if (s.ok()) s = RunStates(p, segment, launch);
  if (s.ok() && beside) s = cuda.Order(cuda.beside(), cuda.stream());
  if (s.ok() && beside) s = cuda.Order(cuda.stream(), cuda.beside());
  if (s.ok()) s = RunOutputs(p, segment, beside, launch);
  return s.ok() ? RunPack(p, segment, beside, launch) : s;
}

// Of S of all heads, in float32.
size_t BytesOfState(const SsdScanParams& p) {
  return static_cast<size_t>(p.heads) * static_cast<size_t>(p.head_dim) *
         static_cast<size_t>(p.state_dim) * sizeof(float);
}

}  // namespace

bool HasRoomForChunks(const Launch& launch) {
  int shared = 0;  // a failure here leaves it at 0
  (void)cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                               launch.cuda->ordinal());
  return static_cast<size_t>(shared) >= std::max(StatesSharedBytes(), OutputsSharedBytes());
}

bool TakesChunks(const SsdScanParams& p, const Launch& launch) {
  if (!HasRoomForChunks(launch)) return false;
  const bool dtypes = p.x.dtype == DType::kBFloat16 && p.b.dtype == DType::kBFloat16 &&
                      p.c.dtype == DType::kBFloat16 && p.y.dtype == DType::kBFloat16;
  return dtypes && p.head_dim == 64 && (p.state_dim == 64 || p.state_dim == 128) &&
         TakesVectors(p.x.data, p.x_stride) && TakesVectors(p.b.data, p.b_stride) &&
         TakesVectors(p.c.data, p.c_stride) && TakesVectors(p.y.data, p.y_stride) &&
         IsAligned(p.state.data) && p.state_slot_stride % 4 == 0 &&
         IsAligned(p.checkpoint_state.data) && p.checkpoint_state_stride % 4 == 0 &&
         p.rows.num_seqs <= 65535;
}

// The walk of a segment takes only some of the multiprocessors and waits for nobody: Outputs of the
// segment before runs beside it, on the context's second stream, and has scratch of its own.
absl::Status SsdChunked(const SsdScanParams& p, int32_t longer_than, const Launch& launch) {
  CudaContext& cuda = *launch.cuda;
  const int64_t ids = int64_t{p.rows.total_rows} / kChunk + p.rows.num_seqs;
  const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(kMostScratch / BytesOfChunk(p)));
  const bool beside = ids > most;
  const auto each = static_cast<int32_t>(CeilDiv(ids, CeilDiv(ids, most)));
  const size_t bytes = (BytesOfChunk(p) * static_cast<size_t>(each) + 255) / 256 * 256;
  const size_t kept = p.checkpoints.packed == nullptr
                          ? 0
                          : BytesOfState(p) * static_cast<size_t>(p.checkpoints.count);
  absl::StatusOr<void*> scratch = cuda.Scratch(kept + (beside ? 2 * bytes : bytes));
  if (!scratch.ok()) return scratch.status();
  absl::Status s;
  size_t half = 0;
  for (int32_t first = 0; s.ok() && first < ids; first += each, half = beside ? 1 - half : 0) {
    Segment segment = Place(static_cast<char*>(*scratch) + kept + half * bytes, each, p);
    segment.kept = Acts(static_cast<float*>(*scratch));
    segment.longer_than = longer_than;
    segment.first = first;
    segment.count = static_cast<int32_t>(std::min<int64_t>(each, ids - first));
    s = RunSegment(p, segment, beside, launch);
  }
  if (beside) s.Update(cuda.Order(cuda.beside(), cuda.stream()));
  return s;
}

}  // namespace anabranch::kernels::cuda
