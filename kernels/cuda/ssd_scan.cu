// The Mamba-2 recurrence on the device: which way for which rows, and the way that applies every
// token in order with S in registers. Sequences of one row are ssd_step.cu's, or ssd_deferred.cu's
// where they defer; long ones of bfloat16 activations ssd_chunked.cu's.
//
// Walk (any shape, short runs of rows, float32): a block takes some rows of one head's S and walks
// the tokens of the sequence in tiles; B, C and x of a tile are staged in shared memory. kLanes
// threads share a row of S and add up y by shuffles. 4 * state_dim operations a row and token.
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/ssd_chunked.h"
#include "kernels/cuda/ssd_deferred.h"
#include "kernels/cuda/ssd_step.h"
#include "kernels/cuda/start.h"
#include "kernels/cuda/state_io.h"
#include "kernels/ssd_scan.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr const char* kName = "SsdScan";
constexpr int kThreads = 128;
constexpr int kTile = 16;       // tokens
constexpr int32_t kShort = 64;  // rows of a sequence up to which walking beats chunks

template <int kLanes, int kStates>
struct WalkTile {
  static constexpr int kWidth = kLanes * kStates;  // of B and C, zeros beyond state_dim
  static constexpr int kRows = kThreads / kLanes;  // of S
  alignas(16) float b[kTile][kWidth];
  alignas(16) float c[kTile][kWidth];
  float x[kTile][kRows];
  float y[kTile][kRows];
  float dt[kTile], decay[kTile];
};

// `count` tokens from `row` on: rows [first_r, ...) of x, B, C, step sizes.
template <int kLanes, int kStates>
__device__ void LoadTile(const SsdScanParams& p, int64_t row, int count, int32_t head,
                         int32_t first_r, WalkTile<kLanes, kStates>& tile) {
  using Tile = WalkTile<kLanes, kStates>;
  const int64_t shared_at = int64_t{head / (p.heads / p.groups)} * p.state_dim;
  for (int i = threadIdx.x; i < count * Tile::kWidth; i += kThreads) {
    const int t = i / Tile::kWidth, n = i % Tile::kWidth;
    const bool in = n < p.state_dim;
    tile.b[t][n] = in ? LoadOne(p.b, (row + t) * p.b_stride + shared_at + n) : 0.0f;
    tile.c[t][n] = in ? LoadOne(p.c, (row + t) * p.c_stride + shared_at + n) : 0.0f;
  }
  for (int i = threadIdx.x; i < count * Tile::kRows; i += kThreads) {
    const int t = i / Tile::kRows, r = i % Tile::kRows;
    const bool in = first_r + r < p.head_dim;
    const int64_t at = (row + t) * p.x_stride + int64_t{head} * p.head_dim + first_r + r;
    tile.x[t][r] = in ? LoadOne(p.x, at) : 0.0f;
  }
  if (threadIdx.x < count) {
    const float dt = StepSize(p, row + threadIdx.x, head);
    tile.dt[threadIdx.x] = dt;
    tile.decay[threadIdx.x] = expf(dt * p.a[head]);
  }
}

// Sequences of `min_rows` to `max_rows` rows. Thread (row r, lane) holds the states 4 (lane +
// kLanes q) to
// + 3 for q < kStates / 4: neighbours read neighbouring 16 bytes of B and C.
template <int kLanes, int kStates, bool kInt8>
__global__ void __launch_bounds__(kThreads)
    Walk(SsdScanParams p, int32_t min_rows, int32_t max_rows) {
  using Tile = WalkTile<kLanes, kStates>;
  __shared__ Tile tile;
  const int32_t seq = static_cast<int32_t>(blockIdx.x), head = static_cast<int32_t>(blockIdx.y);
  const int64_t begin = p.rows.row_start[seq], end = p.rows.row_start[seq + 1];
  if (end - begin < min_rows || end - begin > max_rows || p.pending.Defers(seq)) return;
  const int lane = threadIdx.x % kLanes, r = threadIdx.x / kLanes;
  const int32_t first_r = static_cast<int32_t>(blockIdx.z) * Tile::kRows;
  const bool live = first_r + r < p.head_dim;
  const int64_t slot = p.rows.slot[seq];
  const int64_t at_state = (int64_t{head} * p.head_dim + first_r + r) * p.state_dim;
  float s[kStates];
#pragma unroll
  for (int i = 0; i < kStates; ++i) {
    const int n = 4 * (lane + kLanes * (i / 4)) + i % 4;
    const bool in = live && n < p.state_dim;
    s[i] = in ? LoadStateOne<kInt8>(p, slot * p.state_slot_stride, at_state + n) : 0.0f;
  }
  double* t_sum = p.t_sum + slot * p.t_slot_stride + head;
  const bool sums_t = blockIdx.z == 0 && threadIdx.x == 0;
  double sum = sums_t ? *t_sum : 0.0;
  const auto keep = [&](const Acts& to, int64_t at, int64_t after) {
    const uint32_t key = RoundingKeyOf(p, seq, after - begin);
    if constexpr (kInt8) {
      StoreInt8Row<kLanes>(p, to, at, at_state, lane, key, live, s);
      return;
    }
    if (!live) return;
#pragma unroll
    for (int i = 0; i < kStates; ++i) {
      const int n = 4 * (lane + kLanes * (i / 4)) + i % 4;
      const float value[1] = {s[i]};
      if (n < p.state_dim) {
        StoreState(to, at + at_state + n, static_cast<uint32_t>(at_state + n), key, value);
      }
    }
  };
  int32_t next = p.checkpoints.FirstFrom(begin);
  for (int64_t row = begin, stop; row < end; row = stop) {  // tiles end at checkpoints
    stop = min(row + kTile, end);
    if (next < p.checkpoints.count) stop = min(stop, int64_t{p.checkpoints.row[next]} + 1);
    const int count = static_cast<int>(stop - row);
    LoadTile(p, row, count, head, first_r, tile);
    __syncthreads();
    for (int t = 0; t < count; ++t) {
      const float decay = tile.decay[t], in = tile.dt[t] * tile.x[t][r];
      float y = 0;
#pragma unroll
      for (int q = 0; q < kStates / 4; ++q) {
        const float4 b = *reinterpret_cast<const float4*>(&tile.b[t][4 * (lane + kLanes * q)]);
        const float4 c = *reinterpret_cast<const float4*>(&tile.c[t][4 * (lane + kLanes * q)]);
        const float bs[4] = {b.x, b.y, b.z, b.w}, cs[4] = {c.x, c.y, c.z, c.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          s[4 * q + i] = fmaf(in, bs[i], s[4 * q + i] * decay);
          y = fmaf(s[4 * q + i], cs[i], y);
        }
      }
#pragma unroll
      for (int step = kLanes / 2; step > 0; step /= 2) y += __shfl_xor_sync(kAllLanes, y, step);
      if (lane == 0) tile.y[t][r] = y;
    }
    if (sums_t) {
      for (int t = 0; t < count; ++t) sum += tile.dt[t];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * Tile::kRows; i += kThreads) {
      const int t = i / Tile::kRows, at_r = i % Tile::kRows;
      if (first_r + at_r >= p.head_dim) continue;
      const int64_t at = int64_t{head} * p.head_dim + first_r + at_r;
      StoreOne(p.y, (row + t) * p.y_stride + at, fmaf(p.d[head], tile.x[t][at_r], tile.y[t][at_r]));
    }
    __syncthreads();
    for (; next < p.checkpoints.count && p.checkpoints.row[next] < stop; ++next) {
      const int64_t place = p.checkpoints.place[next];
      keep(p.checkpoint_state, place * p.checkpoint_state_stride, stop);
      if (sums_t) p.checkpoint_t[place * p.checkpoint_t_stride + head] = sum;
    }
  }
  if (sums_t) *t_sum = sum;
  keep(p.state, slot * p.state_slot_stride, end);
}

template <int kLanes, int kStates>
absl::Status RunWalk(const SsdScanParams& p, int32_t min_rows, int32_t max_rows,
                     const Launch& launch) {
  constexpr int kRows = WalkTile<kLanes, kStates>::kRows;
  const dim3 grid(static_cast<unsigned>(p.rows.num_seqs), static_cast<unsigned>(p.heads),
                  static_cast<unsigned>(CeilDiv(p.head_dim, kRows)));
  const bool int8 = p.state.dtype == DType::kInt8;
  return Start(launch, kName, int8 ? Walk<kLanes, kStates, true> : Walk<kLanes, kStates, false>,
               grid, kThreads, 0, p, min_rows, max_rows);
}

absl::Status Walk(const SsdScanParams& p, int32_t min_rows, int32_t max_rows,
                  const Launch& launch) {
  if (p.state_dim <= 16) return RunWalk<4, 4>(p, min_rows, max_rows, launch);
  if (p.state_dim <= 64) return RunWalk<4, 16>(p, min_rows, max_rows, launch);
  if (p.state_dim <= 128) return RunWalk<4, 32>(p, min_rows, max_rows, launch);
  return RunWalk<8, 32>(p, min_rows, max_rows, launch);
}

bool HasPending(const SsdPending& pending) {
  return pending.room > 0 && pending.room <= SsdPending::kMost && pending.before && pending.after &&
         pending.x.data && pending.b.data && pending.dt && pending.share;
}

absl::Status Check(const SsdScanParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, kName); !s.ok()) return s;
  if (p.heads <= 0 || p.head_dim <= 0 || p.groups <= 0 || p.heads % p.groups != 0 ||
      p.heads > 65535 || p.state_dim <= 0 || p.state_dim > 256) {
    return Require(false, kName, "bad heads, groups, head_dim or state_dim (1..256)");
  }
  const int64_t inner = int64_t{p.heads} * p.head_dim, shared = int64_t{p.groups} * p.state_dim;
  const bool strides = p.x_stride >= inner && p.y_stride >= inner && p.b_stride >= shared &&
                       p.c_stride >= shared && p.dt_stride >= p.heads && p.state_slot_stride >= 0 &&
                       p.t_slot_stride >= 0;
  const bool arrays = p.rows.num_seqs > 0 && p.rows.row_start && p.rows.slot && p.x.data &&
                      p.b.data && p.c.data && p.dt.data && p.a && p.d && p.dt_bias &&
                      p.state.data && p.t_sum && p.y.data && KnowsPositions(p);
  const bool ring = p.checkpoints.count == 0 || TakesCheckpoints(p);
  const bool pending = p.pending.deferring == 0 || HasPending(p.pending);
  return Require(strides && arrays && ring && pending && p.dt_lo <= p.dt_hi, kName,
                 "missing array, short stride or dt_lo > dt_hi");
}

}  // namespace

int32_t SsdPacksCheckpointsFrom(int64_t head_dim, int64_t state_dim, DType activations, DType state,
                                const Launch& launch) {
  const bool packs = head_dim == 64 && state_dim == 128 && activations == DType::kBFloat16 &&
                     state == DType::kFloat32;
  return packs && HasRoomForChunks(launch) ? kShort + 1 : 0;
}

absl::Status SsdScan(const SsdScanParams& p, const Launch& launch) {
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status bad = Check(p, launch); !bad.ok()) return bad;
  // What becomes of a sequence depends on its own rows and not on the others in the launch: each of
  // the ways takes those that are its own.
  if (p.pending.deferring > 0) {
    if (absl::Status bad = SsdDeferred(p, launch); !bad.ok()) return bad;
    if (p.pending.deferring == p.rows.num_seqs) return absl::OkStatus();
  }
  const bool steps = TakesWholeSteps(p), chunks = TakesChunks(p, launch) && p.rows.longest > kShort;
  if (p.checkpoints.packed != nullptr &&
      !(chunks &&
        SsdPacksCheckpointsFrom(p.head_dim, p.state_dim, p.x.dtype, p.state.dtype, launch) > 0)) {
    return Require(false, kName, "checkpoints that cannot be packed");
  }
  const bool mixed = p.rows.num_seqs > 1;
  if (steps && (mixed || p.rows.longest == 1)) {
    if (absl::Status bad = SsdStep(p, launch); !bad.ok()) return bad;
  }
  if (chunks) {
    if (absl::Status bad = SsdChunked(p, kShort, launch); !bad.ok()) return bad;
  }
  const int32_t min_rows = steps ? 2 : 1, max_rows = chunks ? kShort : p.rows.longest;
  if (max_rows < min_rows || (chunks && !mixed)) return absl::OkStatus();
  return Walk(p, min_rows, max_rows, launch);
}

}  // namespace anabranch::kernels::cuda
