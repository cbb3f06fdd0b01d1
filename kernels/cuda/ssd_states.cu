// The states of the chunked scan (ssd_chunked.cu): a block walks the chunks of one head of a
// sequence, or of some columns of its S where there are few heads. A warp holds a part of S as
// accumulators of 16 x 8 and adds (weight * x)^T B to it, both read transposed from shared memory.
// Operations: 2 P N a token and head.
//
// A walk is a chain, so what counts is how long a chunk takes and not how much there is to do: x is
// multiplied by its weights one chunk ahead, where it lies, by all threads alike, so that between
// two chunks there is one barrier and a warp's products wait for nothing but its operands.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/ssd_segment.h"
#include "kernels/cuda/start.h"
#include "kernels/cuda/state_io.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = kChunkThreads;
constexpr int kStages = 4;  // one in use, one being weighted, two on their way

// Of a block that has kWidth columns of a head's S.
template <int kP, int kWidth>
struct StatesStage {
  Bf16 x[kChunk][kP + 8];
  Bf16 b[kChunk][kWidth + 8];
  alignas(16) float weights[kChunk];
};

template <int kP, int kWidth>
struct StatesShared {
  StatesStage<kP, kWidth> stages[kStages];
  alignas(16) float weights[kChunk];  // up to a checkpoint inside a chunk
};

// What a block of States walks.
struct Walker {
  int32_t head, column;    // of S, the first one
  int32_t base, from, to;  // base: id of the sequence's first chunk; chunks [from, to)
  int64_t begin, end;      // rows of the sequence

  __device__ int64_t FirstRow(int32_t chunk) const { return begin + int64_t{chunk} * kChunk; }
  __device__ int64_t LastRow(int32_t chunk) const { return min(FirstRow(chunk) + kChunk, end) - 1; }
};

// Brings chunk after chunk.
template <int kP, int kN, int kWidth>
class Loader {
 public:
  __device__ Loader(const SsdScanParams& p, const Segment& segment, const Walker& walker)
      : x_(p.x, walker.FirstRow(walker.from), p.x_stride, int64_t{walker.head} * kP),
        b_(p.b, walker.FirstRow(walker.from), p.b_stride,
           int64_t{walker.head / (p.heads / p.groups)} * kN + walker.column),
        weights_(segment.weights +
                 (int64_t{walker.base + walker.from - segment.first} * p.heads + walker.head) *
                     kChunk),
        x_step_(kChunk * p.x_stride),
        b_step_(kChunk * p.b_stride),
        weights_step_(int64_t{kChunk} * p.heads),
        left_(static_cast<int32_t>(walker.LastRow(walker.to - 1) + 1 -
                                   walker.FirstRow(walker.from))) {}
  // A group of copies, empty after the last chunk.
  __device__ void Load(StatesStage<kP, kWidth>& stage) {
    if (left_ > 0) {
      const int32_t rows = min(kChunk, left_);
      x_.Copy(rows, stage.x);
      b_.Copy(rows, stage.b);
      CopyBytes<kChunk * sizeof(float)>(weights_, stage.weights);
      x_.Advance(x_step_);
      b_.Advance(b_step_);
      weights_ += weights_step_;
      left_ -= rows;
    }
    CommitCopies();
  }

 private:
  RowsCopy<kP> x_;
  RowsCopy<kWidth> b_;
  const float* weights_;
  const int64_t x_step_, b_step_, weights_step_;
  int32_t left_;
};

// x of a chunk times its weights.
template <int kP, int kWidth>
__device__ void Weight(StatesStage<kP, kWidth>& stage) {
  constexpr int kPieces = kP / 8, kApart = kThreads / kPieces;
  const int row = static_cast<int>(threadIdx.x) / kPieces;
  const int at = static_cast<int>(threadIdx.x) % kPieces * 8;
#pragma unroll
  for (int i = 0; i < kChunk; i += kApart) {
    const float w = stage.weights[row + i];
    uint4& piece = *reinterpret_cast<uint4*>(&stage.x[row + i][at]);
    const auto weighted = [w](uint32_t pair) {
      return PackPair(LowOf(pair) * w, HighOf(pair) * w);
    };
    piece = make_uint4(weighted(piece.x), weighted(piece.y), weighted(piece.z), weighted(piece.w));
  }
}

// The accumulators of a warp: kM x kT tiles of 16 rows (of head_dim) x 8 columns (of state_dim),
// from column `column` + first_n on.
template <int kP, int kN, int kWidth, bool kInt8>
struct Tiles {
  static constexpr int kDown = kWidth > 32 ? 2 : 4, kAcross = 8 / kDown;  // warps
  static constexpr int kM = kP / 16 / kDown, kT = kWidth / 8 / kAcross;
  static_assert(kT % 2 == 0);
  float s[kM][kT][4];
  int column, first_p, first_n, g, t;

  __device__ explicit Tiles(int first_column) : column(first_column) {
    const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    first_p = warp / kAcross * (kP / kDown), first_n = warp % kAcross * (kWidth / kAcross);
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
          const int row = first_p + m * 16 + half * 8 + g, at = column + first_n + n * 8 + 2 * t;
          f(row * kN + at, s[m][n][2 * half], s[m][n][2 * half + 1]);
        }
      }
    }
  }
  // The state of a head: `at_head` within the sequence's, whose first element is at `at` of the
  // array.
  __device__ void Load(const SsdScanParams& p, int64_t at, int64_t at_head) {
    const Acts& state = p.state;
    if constexpr (kInt8) return LoadInt8(p, at, at_head);
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
  __device__ void Store(const SsdScanParams& p, const Acts& state, int64_t at, int64_t at_head,
                        uint32_t key) {
    if constexpr (kInt8) return StoreInt8(p, state, at, at_head, key);
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
        const int tile = (first_p / 16 + m) * (kN / 16) + (column + first_n + n * 8) / 16;
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
  // s += (x * weight)^T B, of a chunk whose x was not weighted.
  __device__ void Add(const StatesStage<kP, kWidth>& stage, const float* weights) {
#pragma unroll 2
    for (int k = 0; k < kChunk; k += 16) {
      const float2 low = *reinterpret_cast<const float2*>(&weights[k + 2 * t]);
      const float2 high = *reinterpret_cast<const float2*>(&weights[k + 8 + 2 * t]);
      uint32_t a[kM][4];
      LoadX(stage, k, a);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 w = i < 2 ? low : high;
          a[m][i] = PackPair(LowOf(a[m][i]) * w.x, HighOf(a[m][i]) * w.y);
        }
      }
      MultiplyB(stage, k, a);
    }
  }
  // The same of one whose x was: the same bits.
  __device__ void AddWeighted(const StatesStage<kP, kWidth>& stage) {
#pragma unroll
    for (int k = 0; k < kChunk; k += 16) {
      uint32_t a[kM][4];
      LoadX(stage, k, a);
      MultiplyB(stage, k, a);
    }
  }

 private:
  // Calls f(place of the first of 16 neighbours in the head's state, this lane's four of them: in
  // pairs from places 2 t and 8 + 2 t on). Four lanes have a group together.
  template <class F>
  __device__ void ForGroups(F f) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kT; n += 2) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = first_p + m * 16 + half * 8 + g;
          float four[4] = {s[m][n][2 * half], s[m][n][2 * half + 1], s[m][n + 1][2 * half],
                           s[m][n + 1][2 * half + 1]};
          f(row * kN + column + first_n + n * 8, four);
          s[m][n][2 * half] = four[0], s[m][n][2 * half + 1] = four[1];
          s[m][n + 1][2 * half] = four[2], s[m][n + 1][2 * half + 1] = four[3];
        }
      }
    }
  }
  __device__ void LoadInt8(const SsdScanParams& p, int64_t at, int64_t at_head) {
    const auto* codes = static_cast<const int8_t*>(p.state.data) + at + at_head;
    const uint16_t* scales = Int8Scales(p.state, at, p.state_scales) + at_head / kInt8Group;
    ForGroups([&](int i, float(&four)[4]) {
      const float scale = Int8ScaleValue(scales[i / kInt8Group]);
#pragma unroll
      for (int k = 0; k < 4; ++k) four[k] = codes[i + k / 2 * 8 + 2 * t + k % 2] * scale;
    });
  }
  __device__ void StoreInt8(const SsdScanParams& p, const Acts& state, int64_t at, int64_t at_head,
                            uint32_t key) {
    auto* codes = static_cast<int8_t*>(state.data) + at + at_head;
    uint16_t* scales = Int8Scales(state, at, p.state_scales) + at_head / kInt8Group;
    ForGroups([&](int i, const float(&four)[4]) {
      const Int8Scaling scaling = Int8ScalingOf<4>(four);
#pragma unroll
      for (int k = 0; k < 4; k += 2) {
        const int of_pair = i + k / 2 * 8 + 2 * t;  // its bytes of noise are neighbours
        const uint32_t noise =
            RoundingBits(key, static_cast<uint32_t>((at_head + of_pair) / 4)) >> 8 * (of_pair % 4);
        codes[of_pair] = RoundInt8One(four[k], scaling.inverse, noise & 0xffu);
        codes[of_pair + 1] = RoundInt8One(four[k + 1], scaling.inverse, noise >> 8 & 0xffu);
      }
      if (t == 0) scales[i / kInt8Group] = scaling.scale;
    });
  }
  // Rows [k, k + 16) of x, as operands a.
  __device__ void LoadX(const StatesStage<kP, kWidth>& stage, int k, uint32_t (&a)[kM][4]) const {
    const int lane = threadIdx.x % kWarp;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      LoadMatricesTransposed(
          a[m], &stage.x[k + lane % 8 + lane / 16 * 8][first_p + m * 16 + lane / 8 % 2 * 8]);
    }
  }
  __device__ void MultiplyB(const StatesStage<kP, kWidth>& stage, int k,
                            const uint32_t (&a)[kM][4]) {
    const int lane = threadIdx.x % kWarp;
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
};

// The checkpoints of a walk, one after the other. What says of the next one is asked for when this
// one becomes the current: a walk that looked it up where it needs it would wait for memory in
// each.
class CheckpointCursor {
 public:
  __device__ CheckpointCursor(const Checkpoints& checkpoints, int64_t from)
      : checkpoints_(checkpoints), index_(checkpoints.FirstFrom(from)) {
    Fetch();
    Advance();
  }
  // INT64_MAX: there is none.
  __device__ int64_t row() const { return row_; }
  __device__ int64_t place() const { return place_; }
  // Whether it is to be packed, and its place among those of the launch.
  __device__ bool packed() const { return packed_; }
  __device__ int32_t index() const { return index_ - 1; }
  __device__ void Advance() {
    row_ = next_row_, place_ = next_place_, packed_ = next_packed_ != 0;
    ++index_;
    Fetch();
  }

 private:
  __device__ void Fetch() {
    next_row_ = INT64_MAX;
    if (index_ >= checkpoints_.count) return;
    next_row_ = checkpoints_.row[index_];
    next_place_ = checkpoints_.place[index_];
    if (checkpoints_.packed != nullptr) next_packed_ = checkpoints_.packed[index_];
  }

  const Checkpoints& checkpoints_;
  int32_t index_;
  int64_t row_ = 0, next_row_ = 0;
  int32_t place_ = 0, next_place_ = 0;
  bool packed_ = false;
  uint8_t next_packed_ = 0;
};

// S to where it is kept for checkpoint `check`; what is to be packed as it is, for the kernel
// behind the walk. `key`: what it is rounded by.
template <int kP, int kN, int kWidth, bool kInt8>
__device__ void StoreCheckpoint(const SsdScanParams& p, const Segment& segment, int32_t head,
                                const CheckpointCursor& check, uint32_t key,
                                Tiles<kP, kN, kWidth, kInt8>& tiles) {
  const int64_t at_head = int64_t{head} * kP * kN;
  if (check.packed()) {
    tiles.Store(p, segment.kept, int64_t{check.index()} * p.heads * kP * kN, at_head, key);
  } else {
    tiles.Store(p, p.checkpoint_state, check.place() * p.checkpoint_state_stride, at_head, key);
  }
}

// The state after row `local` of a chunk, from the one before it and the chunk's rows, to where
// checkpoint `check` goes: what the walk itself carries on does not notice. `item` is the chunk's
// and head's, `t_before` the sum of dt up to the chunk, in thread 0.
template <int kP, int kN, int kWidth, bool kInt8>
__device__ void KeepCheckpoint(const SsdScanParams& p, const Segment& segment, int32_t head,
                               int64_t item, int local, double t_before,
                               const CheckpointCursor& check, uint32_t key,
                               const Tiles<kP, kN, kWidth, kInt8>& before,
                               const StatesStage<kP, kWidth>& stage,
                               StatesShared<kP, kWidth>& shared) {
  const float* dt = segment.dt + item * kChunk;
  const float* sums = segment.sums + item * kChunk;
  const int thread = static_cast<int>(threadIdx.x);
  __syncthreads();  // the weights of an earlier checkpoint have been used
  if (thread < kChunk) {
    shared.weights[thread] = thread <= local ? dt[thread] * expf(sums[local] - sums[thread]) : 0.0f;
  }
  if (thread < kWarp) {
    double sum = 0;
    for (int s = thread; s <= local; s += kWarp) sum += dt[s];
    sum = WarpSum(sum);
    if (thread == 0 && before.column == 0) {
      p.checkpoint_t[check.place() * p.checkpoint_t_stride + head] = t_before + sum;
    }
  }
  __syncthreads();
  Tiles<kP, kN, kWidth, kInt8> tiles = before;
  tiles.Decay(expf(sums[local]));
  tiles.Add(stage, shared.weights);
  StoreCheckpoint(p, segment, head, check, key, tiles);
}

template <int kP, int kN, int kWidth, bool kInt8>
__global__ void __launch_bounds__(kThreads, 1) States(SsdScanParams p, Segment segment) {
  auto& shared = *static_cast<StatesShared<kP, kWidth>*>(DynamicShared());
  StatesStage<kP, kWidth>* stages = shared.stages;
  const int32_t seq = static_cast<int32_t>(blockIdx.y);
  constexpr int kParts = kN / kWidth;
  Walker walker;
  walker.head = static_cast<int32_t>(blockIdx.x) / kParts;
  walker.column = static_cast<int32_t>(blockIdx.x) % kParts * kWidth;
  walker.begin = p.rows.row_start[seq], walker.end = p.rows.row_start[seq + 1];
  walker.base = static_cast<int32_t>(walker.begin) / kChunk + seq;
  const auto rows = static_cast<int32_t>(walker.end - walker.begin);
  walker.from = max(0, segment.first - walker.base);
  walker.to = min((rows + kChunk - 1) / kChunk, segment.first + segment.count - walker.base);
  if (rows <= segment.longer_than || walker.from >= walker.to) return;
  Loader<kP, kN, kWidth> loader(p, segment, walker);
  for (int i = 0; i < kStages - 1; ++i) loader.Load(stages[i]);
  const int64_t slot = p.rows.slot[seq];
  const int64_t at_head = int64_t{walker.head} * kP * kN;
  Tiles<kP, kN, kWidth, kInt8> tiles(walker.column);
  tiles.Load(p, slot * p.state_slot_stride, at_head);
  double* t_sum = p.t_sum + slot * p.t_slot_stride + walker.head;
  const bool sums_t = threadIdx.x == 0 && walker.column == 0;
  double sum = sums_t ? *t_sum : 0.0;
  const int64_t first_item =
      int64_t{walker.base + walker.from - segment.first} * p.heads + walker.head;
  const float* decays = segment.decay + first_item;
  const double* steps = segment.t + first_item;
  uint4* before = segment.before + first_item * (kP * kN / 8);
  const int64_t before_step = int64_t{p.heads} * (kP * kN / 8);
  CheckpointCursor check(p.checkpoints, walker.FirstRow(walker.from));
  // A checkpoint inside a chunk needs its x as it is.
  const auto weight = [&](int32_t chunk, StatesStage<kP, kWidth>& stage) {
    const bool weights = check.row() >= walker.LastRow(chunk);
    if (weights) Weight(stage);
    return weights;
  };
  WaitForCopies<kStages - 2>();
  __syncthreads();
  bool weighted = weight(walker.from, stages[0]);
  float next_decay = *decays;
  double next_t = *steps;
  int at = 0;  // of the stages
  for (int32_t chunk = walker.from; chunk < walker.to; ++chunk) {
    const float decay = next_decay;
    const double t_before = sum;
    sum += next_t;
    if (chunk + 1 < walker.to) {
      next_decay = *(decays += p.heads);
      next_t = *(steps += p.heads);
    }
    tiles.StoreOperands(before);
    before += before_step;
    WaitForCopies<kStages - 3>();
    // The chunk is there and weighted, the next one is there, and all are done with the one before.
    __syncthreads();
    loader.Load(stages[(at + kStages - 1) % kStages]);
    const StatesStage<kP, kWidth>& stage = stages[at];
    const int64_t first = walker.FirstRow(chunk), last = walker.LastRow(chunk);
    for (; check.row() < last; check.Advance()) {
      KeepCheckpoint(p, segment, walker.head, first_item + int64_t{chunk - walker.from} * p.heads,
                     static_cast<int>(check.row() - first), t_before, check,
                     RoundingKeyOf(p, seq, check.row() + 1 - walker.begin), tiles, stage, shared);
    }
    tiles.Decay(decay);
    if (weighted) {
      tiles.AddWeighted(stage);
    } else {
      tiles.Add(stage, stage.weights);
    }
    for (; check.row() == last; check.Advance()) {
      StoreCheckpoint(p, segment, walker.head, check,
                      RoundingKeyOf(p, seq, last + 1 - walker.begin), tiles);
      if (sums_t) p.checkpoint_t[check.place() * p.checkpoint_t_stride + walker.head] = sum;
    }
    at = (at + 1) % kStages;
    if (chunk + 1 < walker.to) weighted = weight(chunk + 1, stages[at]);
  }
  const int64_t read = walker.LastRow(walker.to - 1) + 1 - walker.begin;
  tiles.Store(p, p.state, slot * p.state_slot_stride, at_head, RoundingKeyOf(p, seq, read));
  if (sums_t) *t_sum = sum;
}

template <int kP, int kN, int kWidth>
absl::Status Run(const SsdScanParams& p, const Segment& segment, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(p.heads * (kN / kWidth)),
                  static_cast<unsigned>(p.rows.num_seqs));
  const bool int8 = p.state.dtype == DType::kInt8;
  return Start(launch, "SsdScan",
               int8 ? States<kP, kN, kWidth, true> : States<kP, kN, kWidth, false>, grid, kThreads,
               sizeof(StatesShared<kP, kWidth>), p, segment);
}

}  // namespace

size_t StatesSharedBytes() {
  return std::max(sizeof(StatesShared<64, 64>), sizeof(StatesShared<64, 128>));
}

absl::Status RunStates(const SsdScanParams& p, const Segment& segment, const Launch& launch) {
  if (p.state_dim == 64) return Run<64, 64, 64>(p, segment, launch);
  // Parts of heads where there is a multiprocessor for each: the same bits sooner.
  const int64_t heads = int64_t{p.heads} * p.rows.num_seqs;
  const int64_t parts = launch.cuda->multiprocessors() / std::max<int64_t>(heads, 1);
  if (parts >= 4) return Run<64, 128, 32>(p, segment, launch);
  return parts >= 2 ? Run<64, 128, 64>(p, segment, launch) : Run<64, 128, 128>(p, segment, launch);
}

}  // namespace anabranch::kernels::cuda
