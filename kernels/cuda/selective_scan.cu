// The Mamba-1 recurrence on the device. kLanes threads share a channel, each with kStates of its
// states in registers for all tokens of the launch.
//
// Sequences of one row and 16 states are selective_step.cu's, longer ones of bfloat16 activations
// selective_tiled.cu's.
//
// Walk: a block takes kThreads / kLanes channels of one sequence and walks its tokens in tiles.
// What a tile needs is staged in shared memory, loaded and transformed (softplus) by all threads
// alike; then each thread applies the tokens in order; then all threads gate and store. Operations
// a token, channel and state: one exponential, 2 products, 2 fused. The exponentials bound it: 16 a
// clock and multiprocessor.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/selective_step.h"
#include "kernels/cuda/selective_tiled.h"
#include "kernels/cuda/start.h"
#include "kernels/cuda/state_io.h"
#include "kernels/selective_scan.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr const char* kName = "SelectiveScan";
constexpr int kThreads = 128;

template <int kLanes, int kStates>
struct WalkTile {
  static constexpr int kWidth = kLanes * kStates;  // of B and C, zeros beyond state_dim
  static constexpr int kTokens = kWidth > 64 ? 16 : 32;
  static constexpr int kChannels = kThreads / kLanes;
  alignas(16) float b[kTokens][kWidth];
  alignas(16) float c[kTokens][kWidth];
  float dt[kTokens][kChannels];
  float u[kTokens][kChannels];
  float y[kTokens][kChannels];
};

template <int kLanes, int kStates>
__device__ void LoadTile(const SelectiveScanParams& p, int64_t row, int count, int64_t channel,
                         WalkTile<kLanes, kStates>& tile) {
  using Tile = WalkTile<kLanes, kStates>;
  for (int i = threadIdx.x; i < count * Tile::kWidth; i += kThreads) {
    const int t = i / Tile::kWidth, n = i % Tile::kWidth;
    const bool in = n < p.state_dim;
    tile.b[t][n] = in ? LoadOne(p.b, (row + t) * p.b_stride + n) : 0.0f;
    tile.c[t][n] = in ? LoadOne(p.c, (row + t) * p.c_stride + n) : 0.0f;
  }
  for (int i = threadIdx.x; i < count * Tile::kChannels; i += kThreads) {
    const int t = i / Tile::kChannels, k = i % Tile::kChannels;
    if (channel + k >= p.channels) {
      tile.dt[t][k] = tile.u[t][k] = 0;
      continue;
    }
    tile.dt[t][k] =
        Softplus(LoadOne(p.dt, (row + t) * p.dt_stride + channel + k) + p.dt_bias[channel + k]);
    tile.u[t][k] = LoadOne(p.u, (row + t) * p.u_stride + channel + k);
  }
}

template <int kLanes, int kStates>
__device__ void StoreTile(const SelectiveScanParams& p, int64_t row, int count, int64_t channel,
                          const WalkTile<kLanes, kStates>& tile) {
  using Tile = WalkTile<kLanes, kStates>;
  for (int i = threadIdx.x; i < count * Tile::kChannels; i += kThreads) {
    const int t = i / Tile::kChannels, k = i % Tile::kChannels;
    if (channel + k >= p.channels) continue;
    float y = fmaf(p.d[channel + k], tile.u[t][k], tile.y[t][k]);
    if (p.z.data != nullptr) y *= Silu(LoadOne(p.z, (row + t) * p.z_stride + channel + k));
    StoreOne(p.y, (row + t) * p.y_stride + channel + k, y);
  }
}

// Sequences of at least `min_rows` rows. Thread (channel k, lane) holds the states 4 (lane + kLanes
// q) to + 3 for q < kStates / 4.
template <int kLanes, int kStates, bool kInt8>
__global__ void __launch_bounds__(kThreads) Walk(SelectiveScanParams p, int32_t min_rows) {
  using Tile = WalkTile<kLanes, kStates>;
  __shared__ Tile tile;
  const int32_t seq = static_cast<int32_t>(blockIdx.x);
  const int64_t begin = p.rows.row_start[seq], end = p.rows.row_start[seq + 1];
  if (end - begin < min_rows) return;
  const int lane = threadIdx.x % kLanes, k = threadIdx.x / kLanes;
  const int64_t channel = int64_t{blockIdx.y} * Tile::kChannels;
  const bool live = channel + k < p.channels;
  const int64_t slot = p.rows.slot[seq];
  const int64_t at_state = (channel + k) * p.state_dim;
  float h[kStates], a[kStates];
#pragma unroll
  for (int i = 0; i < kStates; ++i) {
    const int n = 4 * (lane + kLanes * (i / 4)) + i % 4;
    const bool in = live && n < p.state_dim;
    h[i] = in ? LoadStateOne<kInt8>(p, slot * p.state_slot_stride, at_state + n) : 0.0f;
    a[i] = in ? p.a[(channel + k) * p.state_dim + n] : 0.0f;
  }
  double* t_sum = p.t_sum + slot * p.t_slot_stride + channel + k;
  double sum = live && lane == 0 ? *t_sum : 0.0;
  const auto keep = [&](const Acts& to, int64_t at, int64_t after) {
    const uint32_t key = RoundingKeyOf(p, seq, after - begin);
    if constexpr (kInt8) {
      StoreInt8Row<kLanes>(p, to, at, at_state, lane, key, live, h);
      return;
    }
    if (!live) return;
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = 4 * (lane + kLanes * (i / 4)) + i % 4;
      const float value[1] = {h[i]};
      if (n < p.state_dim) {
        StoreState(to, at + at_state + n, static_cast<uint32_t>(at_state + n), key, value);
      }
    }
  };
  int32_t next = p.checkpoints.FirstFrom(begin);
  for (int64_t row = begin, stop; row < end; row = stop) {  // tiles end at checkpoints
    stop = min(row + Tile::kTokens, end);
    if (next < p.checkpoints.count) stop = min(stop, int64_t{p.checkpoints.row[next]} + 1);
    const int count = static_cast<int>(stop - row);
    LoadTile(p, row, count, channel, tile);
    __syncthreads();
    for (int t = 0; t < count; ++t) {
      const float dt = tile.dt[t][k], in = dt * tile.u[t][k];
      float y = 0;
#pragma unroll
      for (int q = 0; q < kStates / 4; ++q) {
        const float4 b = *reinterpret_cast<const float4*>(&tile.b[t][4 * (lane + kLanes * q)]);
        const float4 c = *reinterpret_cast<const float4*>(&tile.c[t][4 * (lane + kLanes * q)]);
        const float bs[4] = {b.x, b.y, b.z, b.w}, cs[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& value = h[4 * q + i];
          value = fmaf(in, bs[i], value * expf(dt * a[4 * q + i]));
          y = fmaf(value, cs[i], y);
        }
      }
#pragma unroll
      for (int step = kLanes / 2; step > 0; step /= 2) y += __shfl_xor_sync(kAllLanes, y, step);
      if (lane == 0) {
        tile.y[t][k] = y;
        sum += dt;
      }
    }
    __syncthreads();
    StoreTile(p, row, count, channel, tile);
    __syncthreads();
    for (; next < p.checkpoints.count && p.checkpoints.row[next] < stop; ++next) {
      const int64_t place = p.checkpoints.place[next];
      keep(p.checkpoint_state, place * p.checkpoint_state_stride, stop);
      if (live && lane == 0) p.checkpoint_t[place * p.checkpoint_t_stride + channel + k] = sum;
    }
  }
  if (live && lane == 0) *t_sum = sum;
  keep(p.state, slot * p.state_slot_stride, end);
}

template <int kLanes, int kStates>
absl::Status RunWalk(const SelectiveScanParams& p, int32_t min_rows, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(p.rows.num_seqs),
                  static_cast<unsigned>(CeilDiv(p.channels, WalkTile<kLanes, kStates>::kChannels)));
  const bool int8 = p.state.dtype == DType::kInt8;
  return Start(launch, kName, int8 ? Walk<kLanes, kStates, true> : Walk<kLanes, kStates, false>,
               grid, kThreads, 0, p, min_rows);
}

absl::Status Check(const SelectiveScanParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, kName); !s.ok()) return s;
  if (p.channels <= 0 || p.state_dim <= 0 || p.state_dim > 256) {
    return Require(false, kName, "bad channels or state_dim (1..256)");
  }
  const bool strides = p.u_stride >= p.channels && p.dt_stride >= p.channels &&
                       p.y_stride >= p.channels && p.b_stride >= p.state_dim &&
                       p.c_stride >= p.state_dim &&
                       (p.z.data == nullptr || p.z_stride >= p.channels) &&
                       p.state_slot_stride >= 0 && p.t_slot_stride >= 0;
  const bool arrays = p.rows.num_seqs > 0 && p.rows.row_start && p.rows.slot && p.u.data &&
                      p.dt.data && p.b.data && p.c.data && p.a && p.d && p.dt_bias &&
                      p.state.data && p.t_sum && p.y.data && KnowsPositions(p);
  const bool ring = p.checkpoints.count == 0 || TakesCheckpoints(p);
  return Require(strides && arrays && ring, kName, "missing array or short stride");
}

}  // namespace

absl::Status SelectiveScan(const SelectiveScanParams& p, const Launch& launch) {
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status s = Check(p, launch); !s.ok()) return s;
  // What becomes of a sequence depends on its own rows and not on the others in the launch: each of
  // the ways takes those that are its own.
  const bool steps = TakesSelectiveSteps(p);
  if (steps && (p.rows.num_seqs > 1 || p.rows.longest == 1)) {
    absl::Status s = SelectiveStep(p, launch);
    if (!s.ok()) return s;
  }
  const int32_t min_rows = steps ? 2 : 1;
  if (p.rows.longest < min_rows) return absl::OkStatus();
  if (TakesTiles(p)) return SelectiveTiled(p, launch);
  if (p.state_dim <= 16) return RunWalk<4, 4>(p, min_rows, launch);
  if (p.state_dim <= 64) return RunWalk<4, 16>(p, min_rows, launch);
  return RunWalk<16, 16>(p, min_rows, launch);
}

}  // namespace anabranch::kernels::cuda
