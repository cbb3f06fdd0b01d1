// Steps of sequences that defer (SsdPending): S is read and not written, y = decay * (S C) plus
// what the tokens give that are not in S. One fma for each element of S, where a step that writes
// it has a decay, a fma for the token, one for y and a rounding. Floor: its bytes once, every
// room + 1 steps twice, plus the x of what is pending: 2 * (room / 2) bytes for each row of S of
// state_dim elements, 6 % for 15 tokens and 128 states of 16 bits. B is shared by the heads of a
// group and comes from the cache.
//
// S, and what was pending, were written a step ago at the latest, and the host has waited for that
// step: they are read before WaitForInputs.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/ssd_deferred.h"
#include "kernels/cuda/ssd_step.h"
#include "kernels/cuda/ssd_tokens.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
// Sequences from which on SsdShares is worth a kernel: 16 lose 0.5 ms a step of 64 layers by it.
constexpr int kAheadFrom = 64;
constexpr int kBlocks = 5;  // of a multiprocessor at least, each with 16 KB of S on their way

// The tokens of a sequence that are not in S, for one head; kWidth is at least state_dim.
template <int kWidth>
struct Tokens {
  alignas(16) float b[kMostTokens][kWidth];
  alignas(16) float c[kWidth];
  float weight[kMostTokens];  // dt, and what has decayed since
  float share[kMostTokens];   // the same times B . C: how much of x is in y. Not after SsdShares
};

__device__ Place PlaceOf(const SsdScanParams& p, int32_t seq, bool has_row) {
  const auto head = static_cast<int32_t>(blockIdx.y);
  return {p.rows.slot[seq], has_row ? p.rows.row_start[seq] : 0, head, head / (p.heads / p.groups)};
}

// Decayed, which sets `weight` of all tokens, too; by every warp alike.
template <int kWidth>
__device__ float Weigh(float dt, float a, int count, Tokens<kWidth>& tokens, float& weight) {
  const float left = Decayed(dt, a, count, weight);
  if (threadIdx.x < count) tokens.weight[threadIdx.x] = weight;
  return left;
}

// Sets `share`, each token by one warp, which sums up all of its own at once. B and C are there.
template <int kWidth>
__device__ void Share(int32_t state_dim, int count, float weight, Tokens<kWidth>& tokens) {
  constexpr int kOfWarp = kMostTokens / kWarps;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float dot[kOfWarp] = {};
  for (int n = lane; n < state_dim; n += kWarp) {
    const float c = tokens.c[n];
#pragma unroll
    for (int i = 0; i < kOfWarp; ++i) {
      const int k = warp + i * kWarps;
      if (k < count) dot[i] = fmaf(tokens.b[k][n], c, dot[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kOfWarp; ++i) {
    const int k = warp + i * kWarps;
    const float sum = WarpSum(dot[i]), of_token = __shfl_sync(kAllLanes, weight, k);
    if (lane == 0 && k < count) tokens.share[k] = sum * of_token;
  }
}

// Whether this warp is the one that keeps what a head has once, and this block what a group has.
__device__ bool OwnsHead() { return blockIdx.z == 0 && threadIdx.x < kWarp; }
__device__ bool KeepsB(const SsdScanParams& p, const Place& at) {
  return blockIdx.z == 0 && at.head % (p.heads / p.groups) == 0;
}

template <class Shape>
using Vectors = StateVector<typename Shape::State>[Shape::kRounds][Shape::kWide];

// Row k of B for a lane.
template <class Shape>
__device__ void LaneOf(const float* row, int lane, float (&out)[Shape::kWide][Shape::kEach]) {
#pragma unroll
  for (int w = 0; w < Shape::kWide; ++w) {
    LoadWide(row + lane * Shape::kEach + w * Shape::kApart, out[w]);
  }
}

// S of the rows from `begin` + `row` on, with the tokens in it, back to `state`.
template <class Shape>
__device__ void Fold(const Vectors<Shape>& s, const Tokens<Shape::kStates>& tokens,
                     const float (*x)[kMostTokens + 1], int count, float decay, uint32_t key,
                     int32_t head_dim, int64_t at_head, int32_t begin, int32_t row,
                     const StatePlace<typename Shape::State>& state) {
  constexpr int kEach = Shape::kEach;
  constexpr int kMany = 2 / Shape::kWide;  // more cost registers, and with them blocks
  constexpr int kTogether = Shape::kRounds < kMany ? Shape::kRounds : kMany;
  const int lane = threadIdx.x % Shape::kLanes;
#pragma unroll
  for (int i = 0; i < Shape::kRounds; i += kTogether) {
    float v[kTogether][Shape::kWide][kEach];
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
#pragma unroll
      for (int w = 0; w < Shape::kWide; ++w) {
        UnpackState(s[i + j][w], v[j][w]);
#pragma unroll
        for (int e = 0; e < kEach; ++e) v[j][w][e] *= decay;
      }
    }
    for (int k = 0; k < count; ++k) {
      float b[Shape::kWide][kEach];
      LaneOf<Shape>(tokens.b[k], lane, b);
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        const float in = tokens.weight[k] * x[row + (i + j) * Shape::kRowsOfSet][k];
#pragma unroll
        for (int w = 0; w < Shape::kWide; ++w) {
#pragma unroll
          for (int e = 0; e < kEach; ++e) v[j][w][e] = fmaf(in, b[w][e], v[j][w][e]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kTogether; ++j) {
      const int32_t r = begin + row + (i + j) * Shape::kRowsOfSet;
      if (r >= head_dim) continue;
#pragma unroll
      for (int w = 0; w < Shape::kWide; ++w) {
        float any = 0;
#pragma unroll
        for (int e = 0; e < kEach; ++e) any = fmaf(v[j][w][e], 0.0f, any);
        const int64_t at = int64_t{r} * Shape::kStates + w * Shape::kApart;
        state.Store(at, PackState(v[j][w], key, static_cast<uint32_t>(at_head + at), any));
      }
    }
  }
}

// kStep: sequences of one row that defer; otherwise those that are to be folded. B of all tokens
// and x of what is pending must be readable in fours, and head_dim be a multiple of four. kAhead:
// SsdShares is ahead of it, and B of no use to a step that does not fold.
template <class Shape, bool kStep, bool kAhead>
__global__ void __launch_bounds__(Shape::kThreads, kBlocks) Deferred(SsdScanParams p) {
  static_assert(Shape::kThreads == kThreads);
  constexpr int kDim = Shape::kStates, kEach = Shape::kEach, kRows = Shape::kRows;
  __shared__ Tokens<kDim> tokens;
  // By row of the block and token, at an odd distance: no two rows begin in one bank.
  __shared__ float x[kRows][kMostTokens + 1];
  if constexpr (kStep) LetNextStart();
  const auto seq = static_cast<int32_t>(blockIdx.x);
  if (!Concerns<kStep>(p, seq)) {
    if constexpr (kStep) WaitForInputs();
    return;
  }
  const Place at = PlaceOf(p, seq, kStep);
  const int before = p.pending.before[seq], count = before + (kStep ? 1 : 0);
  const bool folds = p.pending.after[seq] == 0;
  const int lane = threadIdx.x % Shape::kLanes;
  const int32_t begin = static_cast<int32_t>(blockIdx.z) * kRows;
  const int32_t row =
      threadIdx.x / kWarp * Shape::kRowsOfWarp + threadIdx.x % kWarp / Shape::kLanes;
  const int64_t at_head = int64_t{at.head} * p.head_dim * kDim + kEach * lane;
  const StatePlace<typename Shape::State> state(p, p.state, at.slot * p.state_slot_stride, at_head);
  Vectors<Shape> s;
#pragma unroll
  for (int i = 0; i < Shape::kRounds; ++i) {
    const int32_t r = begin + row + i * Shape::kRowsOfSet;
#pragma unroll
    for (int w = 0; w < Shape::kWide; ++w) {
      s[i][w] = {};
      if (r >= p.head_dim) continue;
      s[i][w] = state.Load(int64_t{r} * kDim + w * Shape::kApart);
    }
  }
  const bool needs_b = !kAhead || folds;
  for (int i = threadIdx.x; needs_b && i < before * (kDim / 4); i += kThreads) {
    const int k = i / (kDim / 4), n = i % (kDim / 4) * 4;
    float four[4];
    LoadFour(p.pending.b, at.B(p, k) + n, four);
    StoreNarrow(four, &tokens.b[k][n]);
  }
  for (int i = threadIdx.x; i < before * (kRows / 4); i += kThreads) {
    const int k = i / (kRows / 4), r = i % (kRows / 4) * 4;
    float four[4] = {};
    if (begin + r < p.head_dim) LoadFour(p.pending.x, at.X(p, k) + begin + r, four);
#pragma unroll
    for (int j = 0; j < 4; ++j) x[r + j][k] = four[j];
  }
  if constexpr (kStep) {
    WaitForInputs();
    for (int i = threadIdx.x; needs_b && i < kDim / 4; i += kThreads) {
      float four[4];
      if constexpr (!kAhead) {
        LoadFour(p.c, at.row * p.c_stride + int64_t{at.group} * kDim + 4 * i, four);
        StoreNarrow(four, &tokens.c[4 * i]);
      }
      LoadFour(p.b, at.row * p.b_stride + int64_t{at.group} * kDim + 4 * i, four);
      StoreNarrow(four, &tokens.b[before][4 * i]);
      if constexpr (!kAhead) {
        if (folds || !KeepsB(p, at)) continue;
#pragma unroll
        for (int j = 0; j < 4; ++j) StoreOne(p.pending.b, at.B(p, before) + 4 * i + j, four[j]);
      }
    }
    for (int r = threadIdx.x; r < kRows; r += kThreads) {
      const bool in = begin + r < p.head_dim;
      const int64_t from = at.row * p.x_stride + int64_t{at.head} * p.head_dim + begin + r;
      x[r][before] = in ? LoadOne(p.x, from) : 0.0f;
      if (in && !folds) StoreOne(p.pending.x, at.X(p, before) + begin + r, x[r][before]);
    }
  }
  float weight, decay = 0;
  if (needs_b) {
    const float dt = StepSizes<kStep>(p, at, before, !kAhead && OwnsHead(), !folds);
    decay = Weigh(dt, p.a[at.head], count, tokens, weight);
  }
  __syncthreads();
  if constexpr (kStep) {
    const float* shares = tokens.share;
    float c[Shape::kWide][kEach];
    if constexpr (kAhead) {
      shares = SharesOf(p, at);
      decay = shares[SsdPending::kShares - 1];
      const int64_t from = at.row * p.c_stride + int64_t{at.group} * kDim + kEach * lane;
#pragma unroll
      for (int w = 0; w < Shape::kWide; ++w) LoadFours(p.c, from + w * Shape::kApart, c[w]);
    } else {
      Share(kDim, count, weight, tokens);
      __syncthreads();
      LaneOf<Shape>(tokens.c, lane, c);
    }
    const float skip = p.d[at.head];
    constexpr int kOfLane = (kMostTokens + Shape::kLanes - 1) / Shape::kLanes;  // tokens of a lane
    float share[kOfLane];
#pragma unroll
    for (int k = 0; k < kOfLane; ++k) {
      const int token = lane + k * Shape::kLanes;
      share[k] = token < count ? shares[token] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < Shape::kRounds; ++i) {
      const int32_t r = row + i * Shape::kRowsOfSet;
      float y = 0;
#pragma unroll
      for (int w = 0; w < Shape::kWide; ++w) {
        float v[kEach];
        UnpackState(s[i][w], v);
#pragma unroll
        for (int e = 0; e < kEach; ++e) y = fmaf(v[e], c[w][e], y);
      }
      y *= decay;
#pragma unroll
      for (int k = 0; k < kOfLane; ++k) {
        const int token = lane + k * Shape::kLanes;
        if (token < count) y = fmaf(share[k], x[r][token], y);
      }
#pragma unroll
      for (int step = Shape::kLanes / 2; step > 0; step /= 2) {
        y += __shfl_xor_sync(kAllLanes, y, step);
      }
      if (lane == 0 && begin + r < p.head_dim) {
        const int64_t to = at.row * p.y_stride + int64_t{at.head} * p.head_dim + begin + r;
        StoreOne(p.y, to, fmaf(skip, x[r][before], y));
      }
    }
  }
  if (!folds) return;
  const uint32_t key = RoundingKeyOf(p, seq, kStep ? 1 : 0);
  Fold<Shape>(s, tokens, x, count, decay, key, p.head_dim, at_head, begin, row, state);
}

// The same for any shape: a warp takes a row of S at a time, a lane every 32nd state.
template <bool kStep, bool kInt8>
__global__ void __launch_bounds__(kThreads) DeferredAny(SsdScanParams p) {
  constexpr int kWidth = 256, kOfLane = kWidth / kWarp;
  __shared__ Tokens<kWidth> tokens;
  const auto seq = static_cast<int32_t>(blockIdx.x);
  if (!Concerns<kStep>(p, seq)) return;
  const Place at = PlaceOf(p, seq, kStep);
  const int before = p.pending.before[seq], count = before + (kStep ? 1 : 0);
  const bool folds = p.pending.after[seq] == 0;
  const int lane = threadIdx.x % kWarp;
  const int32_t dim = p.state_dim;
  for (int i = threadIdx.x; i < count * dim; i += kThreads) {
    const int k = i / dim, n = i % dim;
    const bool own = kStep && k == before;
    const int64_t from = at.row * p.b_stride + int64_t{at.group} * dim + n;
    tokens.b[k][n] = own ? LoadOne(p.b, from) : LoadOne(p.pending.b, at.B(p, k) + n);
    if (!own) continue;
    tokens.c[n] = LoadOne(p.c, at.row * p.c_stride + int64_t{at.group} * dim + n);
    if (!folds && KeepsB(p, at)) StoreOne(p.pending.b, at.B(p, k) + n, tokens.b[k][n]);
  }
  float weight;
  const float dt = StepSizes<kStep>(p, at, before, OwnsHead(), !folds);
  const float decay = Weigh(dt, p.a[at.head], count, tokens, weight);
  __syncthreads();
  if constexpr (kStep) {
    Share(dim, count, weight, tokens);
    __syncthreads();
  }
  const uint32_t key = RoundingKeyOf(p, seq, kStep ? 1 : 0);
  for (int32_t r = threadIdx.x / kWarp; r < p.head_dim; r += kWarps) {
    float x = 0;  // of the token that is the lane's number
    if (lane < before) x = LoadOne(p.pending.x, at.X(p, lane) + r);
    if (kStep && lane == before) {
      x = LoadOne(p.x, at.row * p.x_stride + int64_t{at.head} * p.head_dim + r);
      if (!folds) StoreOne(p.pending.x, at.X(p, before) + r, x);
    }
    const int64_t of_row = (int64_t{at.head} * p.head_dim + r) * dim;
    const int64_t at_slot = at.slot * p.state_slot_stride;
    float v[kOfLane], y = 0;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int n = lane + i * kWarp;
      v[i] = n < dim ? LoadStateOne<kInt8>(p, at_slot, of_row + n) : 0.0f;
      if (kStep && n < dim) y = fmaf(v[i], tokens.c[n], y);
    }
    if constexpr (kStep) {
      y *= decay;
      if (lane < count) y = fmaf(tokens.share[lane], x, y);
      y = WarpSum(y);
      if (lane == before) {
        const int64_t to = at.row * p.y_stride + int64_t{at.head} * p.head_dim + r;
        StoreOne(p.y, to, fmaf(p.d[at.head], x, y));
      }
    }
    if (!folds) continue;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) v[i] *= decay;
    for (int k = 0; k < count; ++k) {
      const float in = tokens.weight[k] * __shfl_sync(kAllLanes, x, k);
#pragma unroll
      for (int i = 0; i < kOfLane; ++i) {
        const int n = lane + i * kWarp;
        if (n < dim) v[i] = fmaf(in, tokens.b[k][n], v[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int n = lane + i * kWarp;
      const float value[1] = {v[i]};
      if constexpr (kInt8) {
        StoreInt8<1, kInt8Group>(p, p.state, at_slot, of_row + n, key, n < dim, value);
      } else if (n < dim) {
        StoreState(p.state, at_slot + of_row + n, static_cast<uint32_t>(of_row + n), key, value);
      }
    }
  }
}

// Whether all that is read in vectors can be.
bool TakesDeferredVectors(const SsdScanParams& p, bool step) {
  const bool pending = p.head_dim % 4 == 0 && TakesFours(p.pending.x, p.pending.x_slot_stride) &&
                       TakesFours(p.pending.b, p.pending.b_slot_stride);
  return TakesSteps(p) && pending &&
         (!step || (TakesFours(p.b, p.b_stride) && TakesFours(p.c, p.c_stride)));
}

template <bool kStep>
absl::Status RunDeferred(const SsdScanParams& p, const char* name, const Launch& launch) {
  if (!TakesDeferredVectors(p, kStep)) {
    const dim3 grid(static_cast<unsigned>(p.rows.num_seqs), static_cast<unsigned>(p.heads));
    const bool int8 = p.state.dtype == DType::kInt8;
    return Start(launch, name, int8 ? DeferredAny<kStep, true> : DeferredAny<kStep, false>, grid,
                 kThreads, 0, p);
  }
  const bool ahead = kStep && p.rows.num_seqs >= kAheadFrom;
  if (ahead) {
    if (absl::Status s = SsdShares(p, launch); !s.ok()) return s;
  }
  return WithStepShape(p, launch, [&]<class Shape>() {
    const dim3 grid = StepGrid(p, Shape::kRows);
    if constexpr (kStep) {
      if (ahead) return StartEarly(launch, name, Deferred<Shape, true, true>, grid, kThreads, 0, p);
    }
    return StartWith(kStep ? How::kEarly : How::kInOrder, launch, name,
                     Deferred<Shape, kStep, false>, grid, kThreads, 0, p);
  });
}

}  // namespace

absl::Status SsdDeferred(const SsdScanParams& p, const Launch& launch) {
  return RunDeferred<true>(p, "SsdScan", launch);
}

absl::Status SsdFold(const SsdScanParams& p, const Launch& launch) {
  constexpr const char* kName = "SsdFold";
  const SsdPending& pending = p.pending;
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, kName); !s.ok()) return s;
  if (pending.deferring == 0) return absl::OkStatus();
  const bool sizes = p.heads > 0 && p.heads <= 65535 && p.head_dim > 0 && p.groups > 0 &&
                     p.heads % p.groups == 0 && p.state_dim > 0 && p.state_dim <= 256 &&
                     pending.room > 0 && pending.room <= SsdPending::kMost;
  const bool arrays = p.rows.slot && p.a && p.state.data && pending.before && pending.after &&
                      pending.x.data && pending.b.data && pending.dt && KnowsPositions(p);
  if (!sizes || !arrays) return Require(false, kName, "missing array, or sizes out of range");
  return RunDeferred<false>(p, kName, launch);
}

}  // namespace anabranch::kernels::cuda
