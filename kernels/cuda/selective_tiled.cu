// A block walks some channels of a sequence in tiles of tokens; kLanes threads share a channel,
// each with its part of the 16 states in registers. Of a tile a thread loads 16 bytes of u, dt, z,
// B and C, one tile ahead of their use, so that memory's latency is hidden behind the walk of
// a tile. kLanes tokens are walked together: what they need is read from shared memory a group
// ahead, their decays wait for nothing, and their sums over the lanes come out one a lane (kLanes -
// 1 shuffles).
//
// Bound: one exponential a state and token, at 16 a clock and multiprocessor, and a quarter of that
// for softplus and gate: 20 clocks a token of a block's 16 channels. 5,120 channels of one sequence
// are 320 blocks for 132 multiprocessors, of which some have three: 60 clocks a token at the least,
// 30 ns; 65 are measured (docs/GPU.md). Bytes do not matter: 41 KB a token at 5,120 channels.
#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/selective_tiled.h"
#include "kernels/cuda/start.h"
#include "kernels/cuda/state_io.h"
#include "kernels/cuda/state_vector.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr const char* kName = "SelectiveScan";
constexpr int kThreads = 128, kDim = 16, kLanes = 8;
constexpr int kStates = kDim / kLanes;        // of a thread
constexpr int kChannels = kThreads / kLanes;  // of a block
constexpr int kOctets = kChannels / kVector;
constexpr int kTokens = kThreads / kOctets;       // of a tile
constexpr int kTokensOfGroup = kTokens / kLanes;  // whose steps a group sums
static_assert(kOctets * kTokens == kThreads && kTokens * kDim / kVector == kThreads);
static_assert(kStates == 2);

// Rows are longer than what is in them where threads with different ones would meet in one bank.
struct Tile {
  alignas(16) float2 step[kTokens][kChannels + 2];         // dt, dt * u
  alignas(16) float bc[kLanes][kTokens + 1][2 * kStates];  // a lane's part of B, then of C
  alignas(16) float y[kTokens][kChannels + 4];
  double t_sum[kLanes][kChannels];
};

// What a thread loads of a tile: 8 channels of a token, and 8 states of B and of C.
struct Loaded {
  uint4 u, dt, z, b, c;
};

__device__ inline uint4 Load16(const ConstActs& from, int64_t at) {
  return *reinterpret_cast<const uint4*>(static_cast<const Bf16*>(from.data) + at);
}
__device__ inline void Unpack(const uint4& from, float (&out)[kVector]) {
  const uint32_t words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
  }
}

// A thread's states, or as many of B or C: 8 or 16 bytes of float32.
template <int kCount, class T>
__device__ inline void LoadPart(const T* from, float (&out)[kCount]) {
  const auto pack = *reinterpret_cast<const Pack<T, kCount>*>(from);
#pragma unroll
  for (int i = 0; i < kCount; ++i) out[i] = Widen(pack.v[i]);
}

// What of it is needed when the tile has been walked.
struct Kept {
  uint4 u, z;
};

struct Place {
  int64_t channel;  // of the thread's 8
  bool live;        // whether they exist
  int token, octet;
  int shared_token, half;  // of B and C
};

__device__ Loaded LoadTile(const SelectiveScanParams& p, const Place& at, int64_t row,
                           int64_t end) {
  Loaded out{};
  if (at.live && row + at.token < end) {
    const int64_t from = row + at.token;
    out.u = Load16(p.u, from * p.u_stride + at.channel);
    out.dt = Load16(p.dt, from * p.dt_stride + at.channel);
    if (p.z.data != nullptr) out.z = Load16(p.z, from * p.z_stride + at.channel);
  }
  const int64_t from = row + at.shared_token;
  if (from < end) {
    out.b = Load16(p.b, from * p.b_stride + at.half * kVector);
    out.c = Load16(p.c, from * p.c_stride + at.half * kVector);
  }
  return out;
}

__device__ void StageTile(const Place& at, const Loaded& loaded, const float (&bias)[kVector],
                          Tile& tile) {
  float u[kVector], dt[kVector];
  Unpack(loaded.u, u);
  Unpack(loaded.dt, dt);
  float2* step = &tile.step[at.token][at.octet * kVector];
#pragma unroll
  for (int i = 0; i < kVector; i += 2) {
    const float first = FastSoftplus(dt[i] + bias[i]);
    const float second = FastSoftplus(dt[i + 1] + bias[i + 1]);
    *reinterpret_cast<float4*>(step + i) =
        make_float4(first, first * u[i], second, second * u[i + 1]);
  }
  float b[kVector], c[kVector];
  Unpack(loaded.b, b);
  Unpack(loaded.c, c);
#pragma unroll
  for (int j = 0; j < kVector; j += kStates) {
    float* to = tile.bc[(at.half * kVector + j) / kStates][at.shared_token];
    *reinterpret_cast<float4*>(to) = make_float4(b[j], b[j + 1], c[j], c[j + 1]);
  }
}

__device__ void StoreTile(const SelectiveScanParams& p, const Place& at, const Kept& loaded,
                          const float (&skip)[kVector], int64_t row, int64_t end,
                          const Tile& tile) {
  if (!at.live || row + at.token >= end) return;
  float y[kVector], u[kVector];
  LoadWide<kVector>(&tile.y[at.token][at.octet * kVector], y);
  Unpack(loaded.u, u);
#pragma unroll
  for (int i = 0; i < kVector; ++i) y[i] = fmaf(skip[i], u[i], y[i]);
  if (p.z.data != nullptr) {
    float z[kVector];
    Unpack(loaded.z, z);
#pragma unroll
    for (int i = 0; i < kVector; ++i) y[i] *= Silu(z[i]);
  }
  StoreNarrow<kVector>(y,
                       static_cast<Bf16*>(p.y.data) + (row + at.token) * p.y_stride + at.channel);
}

// What a thread needs of a token.
struct TokenInputs {
  float2 step;
  float4 bc;
};

__device__ inline TokenInputs InputsOf(const Tile& tile, int t, int k, int lane) {
  return {tile.step[t][k], *reinterpret_cast<const float4*>(tile.bc[lane][t])};
}

// A thread's states of its channel.
struct Cells {
  float h[kStates], a[kStates];  // a: times log2(e)

  // This thread's part of y.
  __device__ float Step(const TokenInputs& in) {
    h[0] = fmaf(in.step.y, in.bc.x, h[0] * Exp2(in.step.x * a[0]));
    h[1] = fmaf(in.step.y, in.bc.y, h[1] * Exp2(in.step.x * a[1]));
    return fmaf(h[1], in.bc.w, h[0] * in.bc.z);
  }
};

// Tokens [from, to) of the tile.
__device__ void Walk(Cells& cells, int from, int to, int k, int lane, Tile& tile) {
  int t = from;
  if (t + kLanes <= to) {
    TokenInputs next[kLanes];
#pragma unroll
    for (int i = 0; i < kLanes; ++i) next[i] = InputsOf(tile, t + i, k, lane);
    for (; t + kLanes <= to; t += kLanes) {
      TokenInputs now[kLanes];
#pragma unroll
      for (int i = 0; i < kLanes; ++i) now[i] = next[i];
      const int ahead = min(t + kLanes, kTokens - kLanes);  // any tokens after the last group
#pragma unroll
      for (int i = 0; i < kLanes; ++i) next[i] = InputsOf(tile, ahead + i, k, lane);
      float y[kLanes];
#pragma unroll
      for (int i = 0; i < kLanes; ++i) y[i] = cells.Step(now[i]);
      tile.y[t + lane][k] = SumOverLanes<kLanes, kLanes>(y, lane);
    }
  }
  for (; t < to; ++t) {
    float y = cells.Step(InputsOf(tile, t, k, lane));
#pragma unroll
    for (int width = kLanes / 2; width > 0; width /= 2) {
      y += __shfl_xor_sync(kAllLanes, y, width);
    }
    if (lane == 0) tile.y[t][k] = y;
  }
}

// The sum of dt of channel thread % kChannels over this group's share of tokens [0, count) of a
// tile; a group is kChannels threads.
__device__ inline double SumSteps(int count, const Tile& tile) {
  const int thread = static_cast<int>(threadIdx.x);
  const int from = thread / kChannels * kTokensOfGroup;
  double sum = 0;
  for (int t = from; t < min(from + kTokensOfGroup, count); ++t) {
    sum += tile.step[t][thread % kChannels].x;
  }
  return sum;
}

// For the first kChannels threads: the groups' sums of a channel each.
__device__ inline double SumOfGroups(double of_group, Tile& tile) {
  __syncthreads();  // an earlier call has read its sums
  tile.t_sum[threadIdx.x / kChannels][threadIdx.x % kChannels] = of_group;
  __syncthreads();
  double sum = 0;
  for (int g = 0; g < kLanes; ++g) sum += tile.t_sum[g][threadIdx.x % kChannels];
  return sum;
}

template <bool kInt8>
__global__ void __launch_bounds__(kThreads) Tiled(SelectiveScanParams p) {
  __shared__ Tile tile;
  const int32_t seq = static_cast<int32_t>(blockIdx.x);
  const int64_t begin = p.rows.row_start[seq], end = p.rows.row_start[seq + 1];
  if (end - begin < 2) return;
  const int64_t first = int64_t{blockIdx.y} * kChannels, slot = p.rows.slot[seq];
  const int thread = static_cast<int>(threadIdx.x);
  Place at;
  at.token = thread / kOctets, at.octet = thread % kOctets;
  at.channel = first + at.octet * kVector, at.live = at.channel < p.channels;
  at.shared_token = thread / (kDim / kVector), at.half = thread % (kDim / kVector);
  Loaded next = LoadTile(p, at, begin, end);

  float bias[kVector], skip[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    bias[i] = at.live ? p.dt_bias[at.channel + i] : 0.0f;
    skip[i] = at.live ? p.d[at.channel + i] : 0.0f;
  }
  const int k = thread / kLanes, lane = thread % kLanes;
  const bool live = first + k < p.channels;
  const int64_t at_state = (first + k) * kDim + kStates * lane;
  Cells cells{};
  if (live) {
    const int64_t at_slot = slot * p.state_slot_stride + at_state;
    if constexpr (kInt8) {
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        cells.h[i] = LoadStateOne<true>(p, slot * p.state_slot_stride, at_state + i);
      }
    } else if (p.state.dtype == DType::kFloat32) {
      LoadPart<kStates>(static_cast<const float*>(p.state.data) + at_slot, cells.h);
    } else {
      LoadPart<kStates>(static_cast<const Bf16*>(p.state.data) + at_slot, cells.h);
    }
    LoadPart<kStates>(p.a + at_state, cells.a);
  }
#pragma unroll
  for (int i = 0; i < kStates; ++i) {
    cells.a[i] *= kLog2E;
    // Here and not in the walk, whose first group would wait there for the tile that comes next,
    // too: loads share the few counters that a thread waits for.
    LoadedHere(cells.a[i], cells.h[i]);
  }
  const auto keep = [&](const Acts& to, int64_t at_slot, int64_t after) {
    const uint32_t key = RoundingKeyOf(p, seq, after - begin);
    if constexpr (kInt8) {
      StoreInt8<kStates, kLanes>(p, to, at_slot, at_state, key, live, cells.h);
    } else if (live) {
      StoreState(to, at_slot + at_state, static_cast<uint32_t>(at_state), key, cells.h);
    }
  };
  int32_t check = p.checkpoints.FirstFrom(begin);
  double t_sum = 0;  // of channel thread % kChannels, the tokens that are this group's
  for (int64_t row = begin; row < end; row += kTokens) {
    StageTile(at, next, bias, tile);
    const Kept loaded = {next.u, next.z};
    __syncthreads();
    next = LoadTile(p, at, row + kTokens, end);
    const int count = static_cast<int>(min(end - row, int64_t{kTokens}));
    for (int t = 0, stop; t < count; t = stop) {  // as far as the next checkpoint
      stop = count;
      if (check < p.checkpoints.count) {
        stop = static_cast<int>(min(int64_t{count}, p.checkpoints.row[check] - row + 1));
      }
      Walk(cells, t, stop, k, lane, tile);
      for (; check < p.checkpoints.count && p.checkpoints.row[check] < row + stop; ++check) {
        const int64_t place = p.checkpoints.place[check];
        keep(p.checkpoint_state, place * p.checkpoint_state_stride, row + stop);
        const double sum = SumOfGroups(t_sum + SumSteps(stop, tile), tile);
        if (thread < kChannels && first + thread < p.channels) {
          const int64_t channel = first + thread;
          p.checkpoint_t[place * p.checkpoint_t_stride + channel] =
              p.t_sum[slot * p.t_slot_stride + channel] + sum;
        }
      }
    }
    t_sum += SumSteps(count, tile);
    __syncthreads();
    StoreTile(p, at, loaded, skip, row, end, tile);
  }
  keep(p.state, slot * p.state_slot_stride, end);
  const double sum = SumOfGroups(t_sum, tile);
  if (thread < kChannels && first + thread < p.channels) {
    p.t_sum[slot * p.t_slot_stride + first + thread] += sum;
  }
}

}  // namespace

bool TakesTiles(const SelectiveScanParams& p) {
  const auto fits = [](const ConstActs& acts, int64_t stride) {
    return acts.dtype == DType::kBFloat16 && TakesVectors(acts.data, stride);
  };
  return p.state_dim == kDim && p.channels % kVector == 0 && fits(p.u, p.u_stride) &&
         fits(p.dt, p.dt_stride) && fits(p.b, p.b_stride) && fits(p.c, p.c_stride) &&
         fits(p.y, p.y_stride) && (p.z.data == nullptr || fits(p.z, p.z_stride)) &&
         IsAligned(p.a) && TakesStateVectors(p.state, p.state_slot_stride) &&
         TakesStateVectors(p.checkpoint_state, p.checkpoint_state_stride);
}

absl::Status SelectiveTiled(const SelectiveScanParams& p, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(p.rows.num_seqs),
                  static_cast<unsigned>(CeilDiv(p.channels, kChannels)));
  const bool int8 = p.state.dtype == DType::kInt8;
  return Start(launch, kName, int8 ? Tiled<true> : Tiled<false>, grid, kThreads, 0, p);
}

}  // namespace anabranch::kernels::cuda
