// One token a sequence of the Mamba-2 recurrence: S is read and written once and nothing else
// counts. Floor: 2 * 4 (or 2, or 1.125) bytes for each element of S.
//
// A warp takes whole rows of S, 16 bytes a lane, kRounds sets of them at once so that enough loads
// are under way, and asks for them before the kernels ahead have ended. At hundreds of sequences
// instructions count as much as bytes: places in a row are constant offsets, the dtype of
// activations is known to the kernel, and the sums over the lanes of all sets come out together,
// one a lane.
#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/ssd_step.h"
#include "kernels/cuda/start.h"
#include "kernels/ssd_scan.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// The sequences of one row. B and C of the head's group must be readable in fours.
template <class Shape, bool kHalf>
__global__ void __launch_bounds__(kThreads, 5) Step(SsdScanParams p) {
  static_assert(Shape::kThreads == kThreads);
  using S = typename Shape::State;
  constexpr int kDim = Shape::kStates, kEach = Shape::kEach, kApart = Shape::kApart;
  constexpr int kRounds = Shape::kRounds, kRowsOfSet = Shape::kRowsOfSet;
  LetNextStart();
  const int32_t seq = static_cast<int32_t>(blockIdx.x), head = static_cast<int32_t>(blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x) % Shape::kLanes;
  const int first = static_cast<int>(blockIdx.z) * Shape::kRows +
                    static_cast<int>(threadIdx.x) / kWarp * Shape::kRowsOfWarp +
                    static_cast<int>(threadIdx.x) % kWarp / Shape::kLanes;
  const int64_t row = p.rows.row_start[seq], slot = p.rows.slot[seq];
  if (p.rows.row_start[seq + 1] != row + 1 || p.pending.Defers(seq)) return;
  const int left = p.head_dim - first;
  const auto live = [&](int round) { return round * kRowsOfSet < left; };
  const int64_t at_row = int64_t{head} * p.head_dim + first,
                at_state = at_row * kDim + kEach * lane;
  const StatePlace<S> state(p, p.state, slot * p.state_slot_stride, at_state);
  StateVector<S> s[kRounds][Shape::kWide] = {};
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
#pragma unroll
    for (int w = 0; w < Shape::kWide; ++w) {
      if (live(i)) s[i][w] = state.Load(i * kRowsOfSet * kDim + w * kApart);
    }
  }
  WaitForInputs();  // none of those ahead has to do with this layer's state
  const RowActs<kHalf> xs(p.x, row * p.x_stride + at_row);
  float x[kRounds] = {};
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    if (live(i)) x[i] = xs[i * kRowsOfSet];
  }
  const uint32_t key = RoundingKeyOf(p, seq, 1);
  const float dt = StepSize(p, row, head), decay = expf(dt * p.a[head]), skip = p.d[head];
  if (blockIdx.z == 0 && threadIdx.x == 0) {
    p.t_sum[slot * p.t_slot_stride + head] += static_cast<double>(dt);
  }
  const int64_t shared_at = int64_t{head / (p.heads / p.groups)} * kDim + kEach * lane;
  float b[Shape::kWide][kEach], c[Shape::kWide][kEach];
#pragma unroll
  for (int w = 0; w < Shape::kWide; ++w) {
    LoadFours(p.b, row * p.b_stride + shared_at + w * kApart, b[w]);
    LoadFours(p.c, row * p.c_stride + shared_at + w * kApart, c[w]);
  }
  float y[kRounds];
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    const float in = dt * x[i];
    y[i] = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWide; ++w) {
      float v[kEach];
      UnpackState(s[i][w], v);
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        v[j] = fmaf(in, b[w][j], v[j] * decay);
        y[i] = fmaf(v[j], c[w][j], y[i]);
      }
      const int at = i * kRowsOfSet * kDim + w * kApart;
      s[i][w] = PackState(v, key, static_cast<uint32_t>(at_state + at), y[i]);
      if (live(i)) state.Store(at, s[i][w]);
    }
  }
  const float sum = SumOverLanes<kRounds, Shape::kLanes>(y, lane);
  if (lane < kRounds && live(lane)) {
    const int at = lane * kRowsOfSet;
    StoreOne(p.y, row * p.y_stride + at_row + at, fmaf(skip, xs[at], sum));
  }
  for (int32_t check = p.checkpoints.FirstFrom(row);
       check < p.checkpoints.count && p.checkpoints.row[check] == row; ++check) {
    const int64_t place = p.checkpoints.place[check];
    const StatePlace<S> kept(p, p.checkpoint_state, place * p.checkpoint_state_stride, at_state);
#pragma unroll
    for (int i = 0; i < kRounds; ++i) {
#pragma unroll
      for (int w = 0; w < Shape::kWide; ++w) {
        if (live(i)) kept.Store(i * kRowsOfSet * kDim + w * kApart, s[i][w]);
      }
    }
    if (blockIdx.z == 0 && threadIdx.x == 0) {
      p.checkpoint_t[place * p.checkpoint_t_stride + head] = p.t_sum[slot * p.t_slot_stride + head];
    }
  }
}

}  // namespace

bool TakesWholeSteps(const SsdScanParams& p) {
  return TakesSteps(p) && TakesFours(p.b, p.b_stride) && TakesFours(p.c, p.c_stride) &&
         TakesStateVectors(p.checkpoint_state, p.checkpoint_state_stride);
}

absl::Status SsdStep(const SsdScanParams& p, const Launch& launch) {
  const bool half = p.x.dtype == DType::kBFloat16;
  return WithStepShape(p, launch, [&]<class Shape>() {
    return StartEarly(launch, "SsdScan", half ? Step<Shape, true> : Step<Shape, false>,
                      StepGrid(p, Shape::kRows), kThreads, 0, p);
  });
}

}  // namespace anabranch::kernels::cuda
