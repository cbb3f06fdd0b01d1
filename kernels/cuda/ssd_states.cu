// The states of the chunked scan (ssd_chunked.cu): a block walks the chunks of one head of a
// sequence. A warp holds a part of S as accumulators of 16 x 8 and adds (weight * x)^T B to it,
// both read transposed from shared memory. Operations: 2 P N a token and head.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/ssd_segment.h"
#include "kernels/cuda/start.h"
#include "kernels/cuda/state_io.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = kChunkThreads;
constexpr int kStages = 3;

template <int kP, int kN>
struct StatesStage {
  Bf16 x[kChunk][kP + 8];
  Bf16 b[kChunk][kN + 8];
  alignas(16) float weights[kChunk];
};

template <int kP, int kN>
struct StatesShared {
  StatesStage<kP, kN> stages[kStages];
  alignas(16) float weights[kChunk];  // up to a checkpoint inside a chunk
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
  // Calls f(place of two neighbours in the head's state, their values).
  template <class F>
  __device__ void ForEach(F f) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kT; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_p + m * 16 + half * 8 + g, column = first_n + n * 8 + 2 * t;
          f(row * kN + column, s[m][n][2 * half], s[m][n][2 * half + 1]);
        }
      }
    }
  }
  // The state of a head: `at_head` within the sequence's, whose first element is at `at` of the
  // array.
  __device__ void Load(const Acts& state, int64_t at, int64_t at_head) {
    ForEach([&](int i, float& a, float& b) {
      if (state.dtype == DType::kFloat32) {
        const auto pair = *reinterpret_cast<const float2*>(static_cast<const float*>(state.data) +
                                                           at + at_head + i);
        a = pair.x, b = pair.y;
      } else {
        const auto pair = *reinterpret_cast<const uint32_t*>(
            static_cast<const uint16_t*>(state.data) + at + at_head + i);
        a = LowOf(pair), b = HighOf(pair);
      }
    });
  }
  __device__ void Store(const Acts& state, int64_t at, int64_t at_head, uint32_t key) {
    ForEach([&](int i, float a, float b) {
      const float pair[2] = {a, b};
      StoreState(state, at + at_head + i, static_cast<uint32_t>(at_head + i), key, pair);
    });
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
  __device__ void Add(const StatesStage<kP, kN>& stage, const float* weights) {
    const int lane = threadIdx.x % kWarp;
#pragma unroll 2
    for (int k = 0; k < kChunk; k += 16) {
      const float2 low = *reinterpret_cast<const float2*>(&weights[k + 2 * t]);
      const float2 high = *reinterpret_cast<const float2*>(&weights[k + 8 + 2 * t]);
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

// The state after row `local` of a chunk, from the one before it and the chunk's rows, to where the
// checkpoint goes: what the walk itself carries on does not notice. `item` is the chunk's and
// head's, `t_before` the sum of dt up to the chunk, in thread 0.
template <int kP, int kN>
__device__ void KeepCheckpoint(const SsdScanParams& p, const Segment& segment, int32_t head,
                               int64_t item, int local, double t_before, int64_t place,
                               uint32_t key, const Tiles<kP, kN>& before,
                               const StatesStage<kP, kN>& stage, float* weights) {
  const float* dt = segment.dt + item * kChunk;
  const float* sums = segment.sums + item * kChunk;
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // the weights of an earlier checkpoint have been used
  if (thread < kChunk) {
    weights[thread] = thread <= local ? dt[thread] * expf(sums[local] - sums[thread]) : 0.0f;
  }
  if (thread < kWarp) {
    double sum = 0;
    for (int s = thread; s <= local; s += kWarp) sum += dt[s];
    sum = WarpSum(sum);
    if (thread == 0) p.checkpoint_t[place * p.checkpoint_t_stride + head] = t_before + sum;
  }
  __syncthreads();
  Tiles<kP, kN> tiles = before;
  tiles.Decay(expf(sums[local]));
  tiles.Add(stage, weights);
  tiles.Store(p.checkpoint_state, place * p.checkpoint_state_stride, int64_t{head} * kP * kN, key);
}

template <int kP, int kN>
__global__ void __launch_bounds__(kThreads, 1) States(SsdScanParams p, Segment segment) {
  auto& shared = *static_cast<StatesShared<kP, kN>*>(DynamicShared());
  StatesStage<kP, kN>* stages = shared.stages;
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
  const int64_t at_head = int64_t{walker.head} * kP * kN;
  Tiles<kP, kN> tiles;
  tiles.Load(p.state, slot * p.state_slot_stride, at_head);
  double* t_sum = p.t_sum + slot * p.t_slot_stride + walker.head;
  double sum = threadIdx.x == 0 ? *t_sum : 0.0;
  int64_t item = int64_t{walker.base + walker.from - segment.first} * p.heads + walker.head;
  // The row of the next checkpoint is looked up when it becomes the next: a look at memory in every
  // chunk would be most of what a walk with checkpoints costs.
  int32_t check = p.checkpoints.FirstFrom(walker.begin + int64_t{walker.from} * kChunk);
  const auto next_check = [&p, &check] {
    return check < p.checkpoints.count ? int64_t{p.checkpoints.row[check]} : INT64_MAX;
  };
  int64_t check_row = next_check();
  float next_decay = segment.decay[item];
  double next_t = segment.t[item];
  for (int32_t chunk = walker.from; chunk < walker.to; ++chunk) {
    const float decay = next_decay;
    const double t_before = sum;
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
    const StatesStage<kP, kN>& stage = stages[(chunk - walker.from) % kStages];
    const int64_t first = walker.begin + int64_t{chunk} * kChunk;
    const int64_t last = min(first + kChunk, walker.end) - 1;
    while (check_row < last) {
      KeepCheckpoint(p, segment, walker.head, item - p.heads, static_cast<int>(check_row - first),
                     t_before, p.checkpoints.place[check],
                     RoundingKeyOf(p, seq, check_row + 1 - walker.begin), tiles, stage,
                     shared.weights);
      ++check;
      check_row = next_check();
    }
    tiles.Decay(decay);
    tiles.Add(stage, stage.weights);
    for (; check_row == last; ++check, check_row = next_check()) {
      const int64_t place = p.checkpoints.place[check];
      tiles.Store(p.checkpoint_state, place * p.checkpoint_state_stride, at_head,
                  RoundingKeyOf(p, seq, last + 1 - walker.begin));
      if (threadIdx.x == 0) {
        p.checkpoint_t[place * p.checkpoint_t_stride + walker.head] = sum;
      }
    }
  }
  const int64_t read = min(walker.begin + int64_t{walker.to} * kChunk, walker.end) - walker.begin;
  tiles.Store(p.state, slot * p.state_slot_stride, at_head, RoundingKeyOf(p, seq, read));
  if (threadIdx.x == 0) *t_sum = sum;
}

template <int kP, int kN>
absl::Status Run(const SsdScanParams& p, const Segment& segment, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(p.heads), static_cast<unsigned>(p.rows.num_seqs));
  return Start(launch, "SsdScan", States<kP, kN>, grid, kThreads, sizeof(StatesShared<kP, kN>), p,
               segment);
}

}  // namespace

size_t StatesSharedBytes() {
  return std::max(sizeof(StatesShared<64, 64>), sizeof(StatesShared<64, 128>));
}

absl::Status RunStates(const SsdScanParams& p, const Segment& segment, const Launch& launch) {
  return p.state_dim == 64 ? Run<64, 64>(p, segment, launch) : Run<64, 128>(p, segment, launch);
}

}  // namespace anabranch::kernels::cuda
