// A block walks 32 channels of a sequence in tiles of 32 tokens; four threads share a channel, each
// with four of its states in registers. Of a tile a thread loads 16 bytes of u, dt, z and of B or
// C, one tile ahead of their use, so that memory's latency is hidden behind the walk of a tile.
//
// Bound: one exponential a state and token, at 16 a clock and multiprocessor 4 x 8 clocks a token
// of a warp; about as many instructions are issued (5 a state and 9 more). With 640 warps (5,120
// channels) on 528 schedulers some have two: 64 to 70 clocks a token at the least, 0.3 ms for 8,192
// tokens of one sequence. Bytes do not matter: 41 KB a token at 5,120 channels, 0.08 ms.
#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/selective_tiled.h"
#include "kernels/cuda/start.h"
#include "kernels/cuda/state_io.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr const char* kName = "SelectiveScan";
constexpr int kThreads = 128, kDim = 16, kLanes = 4;
constexpr int kChannels = kThreads / kLanes, kTokens = 32;
constexpr int kOctets = kChannels / kVector;
static_assert(kOctets * kTokens == kThreads && kTokens * kDim * 2 / kVector == kThreads);

struct Tile {
  alignas(16) float2 step[kTokens][kChannels];  // dt, dt * u
  alignas(16) float b[kTokens][kDim];
  alignas(16) float c[kTokens][kDim];
  alignas(16) float y[kTokens][kChannels];
  double t_sum[kThreads / kWarp][kChannels];
};

// What a thread loads of a tile: 8 channels of a token, and 8 states of B or of C.
struct Loaded {
  uint4 u, dt, z, bc;
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

struct Place {
  int64_t channel;  // of the thread's 8
  bool live;        // whether they exist
  int token, octet;
  bool loads_c;  // else B
  int shared_token, half;
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
    out.bc = at.loads_c ? Load16(p.c, from * p.c_stride + at.half * kVector)
                        : Load16(p.b, from * p.b_stride + at.half * kVector);
  }
  return out;
}

__device__ void StageTile(const Place& at, const Loaded& loaded, const float (&bias)[kVector],
                          Tile& tile) {
  float u[kVector], dt[kVector], bc[kVector];
  Unpack(loaded.u, u);
  Unpack(loaded.dt, dt);
  Unpack(loaded.bc, bc);
  float2* step = &tile.step[at.token][at.octet * kVector];
#pragma unroll
  for (int i = 0; i < kVector; i += 2) {
    const float first = FastSoftplus(dt[i] + bias[i]);
    const float second = FastSoftplus(dt[i + 1] + bias[i + 1]);
    *reinterpret_cast<float4*>(step + i) =
        make_float4(first, first * u[i], second, second * u[i + 1]);
  }
  float* to = at.loads_c ? tile.c[at.shared_token] : tile.b[at.shared_token];
  StoreNarrow<kVector>(bc, to + at.half * kVector);
}

__device__ void StoreTile(const SelectiveScanParams& p, const Place& at, const Loaded& loaded,
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

// One channel's four states of a thread.
struct Cells {
  float h[4], a[4];  // a: times log2(e)

  __device__ float Step(float2 step, const float4& b, const float4& c) {
    const float bs[4] = {b.x, b.y, b.z, b.w}, cs[4] = {c.x, c.y, c.z, c.w};
    float y = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      h[i] = fmaf(step.y, bs[i], h[i] * Exp2(step.x * a[i]));
      y = fmaf(h[i], cs[i], y);
    }
    y += __shfl_xor_sync(kAllLanes, y, 2);
    return y + __shfl_xor_sync(kAllLanes, y, 1);
  }
};

__device__ inline void WalkToken(Cells& cells, int t, int k, int lane, Tile& tile) {
  const float y =
      cells.Step(tile.step[t][k], *reinterpret_cast<const float4*>(&tile.b[t][4 * lane]),
                 *reinterpret_cast<const float4*>(&tile.c[t][4 * lane]));
  if (lane == 0) tile.y[t][k] = y;
}

constexpr int kTokensOfWarp = kTokens / (kThreads / kWarp);

// The sum of dt of channel thread % 32 over this warp's share of tokens [0, count) of a tile.
__device__ inline double SumSteps(int count, const Tile& tile) {
  const int from = static_cast<int>(threadIdx.x) / kWarp * kTokensOfWarp;
  double sum = 0;
  for (int t = from; t < min(from + kTokensOfWarp, count); ++t) {
    sum += tile.step[t][threadIdx.x % kWarp].x;
  }
  return sum;
}

// For the first 32 threads: the warps' sums of a channel each.
__device__ inline double SumOfWarps(double of_warp, Tile& tile) {
  __syncthreads();  // an earlier call has read its sums
  tile.t_sum[threadIdx.x / kWarp][threadIdx.x % kWarp] = of_warp;
  __syncthreads();
  double sum = 0;
  for (int w = 0; w < kThreads / kWarp; ++w) sum += tile.t_sum[w][threadIdx.x % kWarp];
  return sum;
}

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
  at.loads_c = thread >= kThreads / 2;
  at.shared_token = thread % (kThreads / 2) / 2, at.half = thread % 2;
  Loaded next = LoadTile(p, at, begin, end);

  float bias[kVector], skip[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    bias[i] = at.live ? p.dt_bias[at.channel + i] : 0.0f;
    skip[i] = at.live ? p.d[at.channel + i] : 0.0f;
  }
  const int k = thread / kLanes, lane = thread % kLanes;
  const bool live = first + k < p.channels;
  const int64_t at_state = (first + k) * kDim + 4 * lane;
  Cells cells{};
  if (live) {
    LoadFour(p.state, slot * p.state_slot_stride + at_state, cells.h);
    LoadWide<4>(p.a + (first + k) * kDim + 4 * lane, cells.a);
#pragma unroll
    for (int i = 0; i < 4; ++i) cells.a[i] *= kLog2E;
  }
  const auto keep = [&](const Acts& to, int64_t at_slot, int64_t after) {
    StoreState(to, at_slot + at_state, static_cast<uint32_t>(at_state),
               RoundingKeyOf(p, seq, after - begin), cells.h);
  };
  int32_t check = p.checkpoints.FirstFrom(begin);
  double t_sum = 0;  // of channel thread % 32, the tokens of a tile that are this warp's
  for (int64_t row = begin; row < end; row += kTokens) {
    const Loaded loaded = next;
    StageTile(at, loaded, bias, tile);
    __syncthreads();
    next = LoadTile(p, at, row + kTokens, end);
    const int count = static_cast<int>(min(end - row, int64_t{kTokens}));
    for (int t = 0, stop; t < count; t = stop) {  // as far as the next checkpoint
      stop = count;
      if (check < p.checkpoints.count) {
        stop = static_cast<int>(min(int64_t{count}, p.checkpoints.row[check] - row + 1));
      }
#pragma unroll 4
      for (int i = t; i < stop; ++i) WalkToken(cells, i, k, lane, tile);
      for (; check < p.checkpoints.count && p.checkpoints.row[check] < row + stop; ++check) {
        const int64_t place = p.checkpoints.place[check];
        if (live) keep(p.checkpoint_state, place * p.checkpoint_state_stride, row + stop);
        const double sum = SumOfWarps(t_sum + SumSteps(stop, tile), tile);
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
  if (live) keep(p.state, slot * p.state_slot_stride, end);
  const double sum = SumOfWarps(t_sum, tile);
  if (thread < kChannels && first + thread < p.channels) {
    p.t_sum[slot * p.t_slot_stride + first + thread] += sum;
  }
}
static_assert(kChannels == kWarp, "a lane sums the steps of one channel");

}  // namespace

bool TakesTiles(const SelectiveScanParams& p) {
  const auto fits = [](const ConstActs& acts, int64_t stride) {
    return acts.dtype == DType::kBFloat16 && TakesVectors(acts.data, stride);
  };
  return p.state_dim == kDim && p.channels % kVector == 0 && fits(p.u, p.u_stride) &&
         fits(p.dt, p.dt_stride) && fits(p.b, p.b_stride) && fits(p.c, p.c_stride) &&
         fits(p.y, p.y_stride) && (p.z.data == nullptr || fits(p.z, p.z_stride)) &&
         IsAligned(p.a) && TakesVectors(p.state.data, p.state_slot_stride) &&
         TakesVectors(p.checkpoint_state.data, p.checkpoint_state_stride);
}

absl::Status SelectiveTiled(const SelectiveScanParams& p, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(p.rows.num_seqs),
                  static_cast<unsigned>(CeilDiv(p.channels, kChannels)));
  return Start(launch, kName, Tiled, grid, kThreads, 0, p);
}

}  // namespace anabranch::kernels::cuda
