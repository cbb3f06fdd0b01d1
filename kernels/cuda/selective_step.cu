// One token a sequence: the state is read and written once and nothing else counts. Floor: 2 * 4
// (or 2, or 1.125) bytes a state; A comes from cache.
//
// A thread has 16 bytes of a channel's state, in kRounds channels, and asks for all of them before
// the kernels ahead have ended: blocks with one short round trip to memory each would spend most of
// their time beginning and ending (docs/GPU.md). Few sequences take one round, so that there are
// blocks for all multiprocessors.
#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/selective_step.h"
#include "kernels/cuda/selective_tiled.h"
#include "kernels/cuda/start.h"
#include "kernels/cuda/state_io.h"
#include "kernels/cuda/state_vector.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 128, kDim = 16;
template <class S>
inline constexpr int kMostRounds = sizeof(S) == 1 ? 2 : 4;  // of int8 a thread has 16 states
template <class S>
inline constexpr int kLanes = kDim / kStateEach<S>;  // threads of a channel
template <class S>
inline constexpr int kChannels = kThreads / kLanes<S>;  // of a round

// Where a thread's first channel lies; the next of its rounds are kChannels further, each at a
// constant offset, which costs no instruction.
template <class S>
struct Places {
  StatePlace<S> state;
  const float *a, *bias, *skip;
  double* t_sum;

  __device__ Places(const SelectiveScanParams& p, int64_t slot, int64_t channel, int lane)
      : state(p, p.state, slot * p.state_slot_stride, channel * kDim + kStateEach<S> * lane),
        a(p.a + channel * kDim + kStateEach<S> * lane),
        bias(p.dt_bias + channel),
        skip(p.d + channel),
        t_sum(p.t_sum + slot * p.t_slot_stride + channel) {}
};

// What a round reads before the kernels ahead have ended.
template <class S>
struct Cell {
  StateVector<S> state;
  Raw<float, kStateEach<S>> a;
  float bias, skip;
  double t_sum;

  __device__ void Load(const Places<S>& at, int round) {
    const int ahead = round * kChannels<S>;
    state = at.state.Load(ahead * kDim);
    a.Load(at.a + ahead * kDim);
    bias = at.bias[ahead];
    skip = at.skip[ahead];
    t_sum = at.t_sum[ahead];
  }
};

// kFast: activations are bfloat16, with the functions of SelectiveTiled.
template <class S, int kRounds, bool kFast>
__global__ void __launch_bounds__(kThreads) Step(SelectiveScanParams p) {
  constexpr int kEach = kStateEach<S>;
  LetNextStart();
  const int32_t seq = static_cast<int32_t>(blockIdx.x);
  const int64_t row = p.rows.row_start[seq], slot = p.rows.slot[seq];
  if (p.rows.row_start[seq + 1] != row + 1) return;
  const int lane = static_cast<int>(threadIdx.x) % kLanes<S>;
  const int64_t first =
      int64_t{blockIdx.y} * kChannels<S> * kRounds + static_cast<int>(threadIdx.x) / kLanes<S>;
  const auto left = static_cast<int>(min(p.channels - first, int64_t{kChannels<S> * kRounds}));
  const auto live = [&](int round) { return round * kChannels<S> < left; };
  const Places<S> at(p, slot, first, lane);
  Cell<S> cells[kRounds] = {};
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    if (live(i)) cells[i].Load(at, i);
  }
  WaitForInputs();  // none of those ahead has to do with this layer's state
  float b[kEach], c[kEach];
  LoadFours(p.b, row * p.b_stride + kEach * lane, b);
  LoadFours(p.c, row * p.c_stride + kEach * lane, c);
  const RowActs<kFast> us(p.u, row * p.u_stride + first), dts(p.dt, row * p.dt_stride + first);
  const bool gated = p.z.data != nullptr;
  const RowActs<kFast> zs(gated ? p.z : p.u, row * (gated ? p.z_stride : p.u_stride) + first);
  float u[kRounds] = {}, raw[kRounds] = {}, z[kRounds] = {};
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    if (!live(i)) continue;
    u[i] = us[i * kChannels<S>];
    raw[i] = dts[i * kChannels<S>];
    z[i] = zs[i * kChannels<S>];
  }
  const uint32_t key = RoundingKeyOf(p, seq, 1);
  const int32_t check = p.checkpoints.FirstFrom(row);
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const int ahead = i * kChannels<S>;
    float h[kEach], a[kEach];
    UnpackState(cells[i].state, h);
    cells[i].a.WidenTo(a);
    raw[i] += cells[i].bias;
    const float dt = kFast ? FastSoftplus(raw[i]) : Softplus(raw[i]), in = dt * u[i];
    const float rate = dt * kLog2E;
    float y = 0;
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      h[n] = fmaf(in, b[n], h[n] * (kFast ? Exp2(rate * a[n]) : expf(dt * a[n])));
      y = fmaf(h[n], c[n], y);
    }
    const float any = y;  // NaN if one of them is
#pragma unroll
    for (int step = kLanes<S> / 2; step > 0; step /= 2) {
      y += __shfl_xor_sync(kAllLanes, y, step);
    }
    if (!live(i)) continue;
    const int64_t at_state = (first + ahead) * kDim + kEach * lane;
    const StateVector<S> packed = PackState(h, key, static_cast<uint32_t>(at_state), any);
    at.state.Store(ahead * kDim, packed);
    const double sum = cells[i].t_sum + dt;
    for (int32_t k = check; k < p.checkpoints.count && p.checkpoints.row[k] == row; ++k) {
      const int64_t place = p.checkpoints.place[k];
      StatePlace<S>(p, p.checkpoint_state, place * p.checkpoint_state_stride, at_state)
          .Store(0, packed);
      if (lane == 0) p.checkpoint_t[place * p.checkpoint_t_stride + first + ahead] = sum;
    }
    if (lane != 0) continue;
    at.t_sum[ahead] = sum;
    y = fmaf(cells[i].skip, u[i], y);
    if (gated) y *= Silu(z[i]);
    if (kFast) {
      static_cast<Bf16*>(p.y.data)[row * p.y_stride + first + ahead] = __float2bfloat16_rn(y);
    } else {
      StoreOne(p.y, row * p.y_stride + first + ahead, y);
    }
  }
}

template <class S, int kRounds>
absl::Status Run(const SelectiveScanParams& p, const Launch& launch) {
  const dim3 grid(static_cast<unsigned>(p.rows.num_seqs),
                  static_cast<unsigned>(CeilDiv(p.channels, int64_t{kChannels<S>} * kRounds)));
  return StartEarly(launch, "SelectiveScan",
                    TakesTiles(p) ? Step<S, kRounds, true> : Step<S, kRounds, false>, grid,
                    kThreads, 0, p);
}

template <class S>
absl::Status Run(const SelectiveScanParams& p, const Launch& launch) {
  const int64_t blocks =
      p.rows.num_seqs * CeilDiv(p.channels, int64_t{kChannels<S>} * kMostRounds<S>);
  const bool few = blocks < int64_t{8} * launch.cuda->multiprocessors();
  return few ? Run<S, 1>(p, launch) : Run<S, kMostRounds<S>>(p, launch);
}

}  // namespace

bool TakesSelectiveSteps(const SelectiveScanParams& p) {
  return p.state_dim == kDim && IsAligned(p.a) && TakesStateVectors(p.state, p.state_slot_stride) &&
         TakesFours(p.b, p.b_stride) && TakesFours(p.c, p.c_stride) &&
         TakesStateVectors(p.checkpoint_state, p.checkpoint_state_stride);
}

absl::Status SelectiveStep(const SelectiveScanParams& p, const Launch& launch) {
  return WithStateType(p.state.dtype, [&]<class S>() { return Run<S>(p, launch); });
}

}  // namespace anabranch::kernels::cuda
