// The causal convolution on the device. Floor, bytes: every input and output once, and per sequence
// the window read and written; operations do not matter.
//
// Reading (ConvRows): a thread takes 8 channels (16 bytes of bfloat16) of a run of rows and keeps
// the last inputs in registers, so an input is read once, but for the width - 1 rows before each
// run. It asks for the inputs of several rows before it uses the first. The saved window is needed
// by the first rows of a sequence and replaced after its last, in blocks that know nothing of each
// other: a second launch (KeepWindow) moves it. A step of one row a sequence (ConvStep) does both
// at once, since there one thread has all inputs of its channels.
#include <algorithm>

#include "kernels/causal_conv1d.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/scan_math.h"
#include "kernels/cuda/start.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kMaxWidth = 8;
// Rows whose loads are in flight together.
template <class T>
constexpr int kTogether = sizeof(T) == 2 ? 8 : 2;

// kVec channels of the last inputs, newest at the end, and the weights in the same places. With
// kWidth 0 the width is known at run time only and the front stays unused.
template <int kVec, int kWidth>
struct Taps {
  static constexpr int kCount = kWidth > 0 ? kWidth : kMaxWidth;
  float weight[kCount][kVec];
  float bias[kVec];
  float input[kCount][kVec];
  int skip;  // unused taps at the front

  __device__ Taps(const CausalConv1dParams& p, int64_t channel) {
    skip = kWidth > 0 ? 0 : kMaxWidth - p.width;
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      if (j < skip) continue;
      LoadWide<kVec>(p.weight + (j - skip) * p.channels + channel, weight[j]);
    }
#pragma unroll
    for (int i = 0; i < kVec; ++i) bias[i] = 0;
    if (p.bias != nullptr) LoadWide<kVec>(p.bias + channel, bias);
  }
  // The inputs before token t of sequence `seq`, whose first row is `first`.
  __device__ void LoadHistory(const CausalConv1dParams& p, int32_t seq, int64_t first, int64_t t,
                              int64_t channel) {
    const float* window = p.window + p.rows.slot[seq] * p.window_slot_stride + channel;
#pragma unroll
    for (int j = 0; j + 1 < kCount; ++j) {
      if (j < skip) continue;
      const int64_t at = t - (kCount - 1) + j;
      if (at >= 0) {
        LoadActs<kVec>(p.u.data, p.u.dtype, (first + at) * p.u_stride + channel, input[j + 1]);
      } else {
        LoadWide<kVec>(window + (p.width - 1 + at) * p.channels, input[j + 1]);
      }
    }
  }
  __device__ void Push(const float (&newest)[kVec]) {
#pragma unroll
    for (int j = 0; j + 1 < kCount; ++j) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) input[j][i] = input[j + 1][i];
    }
#pragma unroll
    for (int i = 0; i < kVec; ++i) input[kCount - 1][i] = newest[i];
  }
  __device__ void Store(const CausalConv1dParams& p, int64_t row, int64_t channel) const {
    float out[kVec];
#pragma unroll
    for (int i = 0; i < kVec; ++i) out[i] = bias[i];
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      if (j < skip) continue;
#pragma unroll
      for (int i = 0; i < kVec; ++i) out[i] = fmaf(weight[j][i], input[j][i], out[i]);
    }
    if (p.silu) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) out[i] = Silu(out[i]);
    }
    StoreActs<kVec>(p.out.data, p.out.dtype, row * p.out_stride + channel, out);
  }
};

// Rows [row, last), whose history the taps have, of inputs of type T.
template <class T, int kVec, int kWidth>
__device__ void ConvRun(const CausalConv1dParams& p, int64_t row, int64_t last, int64_t channel,
                        Taps<kVec, kWidth>& taps) {
  const T* from = static_cast<const T*>(p.u.data) + channel;
  constexpr int kRows = kTogether<T>;
  for (; row + kRows <= last; row += kRows) {
    Raw<T, kVec> next[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      next[r].Load(from + (row + r) * p.u_stride);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float newest[kVec];
      next[r].WidenTo(newest);
      taps.Push(newest);
      taps.Store(p, row + r, channel);
    }
  }
  for (; row < last; ++row) {
    Raw<T, kVec> next;
    next.Load(from + row * p.u_stride);
    float newest[kVec];
    next.WidenTo(newest);
    taps.Push(newest);
    taps.Store(p, row, channel);
  }
}

// LoadHistory leaves the inputs one place further to the end than they are when a token is pushed:
// Push moves them.
template <int kVec, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) ConvRows(CausalConv1dParams p, int rows_each) {
  const int64_t channel = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kVec;
  if (channel >= p.channels) return;
  int64_t row = int64_t{blockIdx.x} * rows_each;
  const int64_t end = min(row + rows_each, int64_t{p.rows.total_rows});
  Taps<kVec, kWidth> taps(p, channel);
  for (int32_t seq = SequenceOf(p.rows.row_start, p.rows.num_seqs, row); row < end; ++seq) {
    const int64_t first = p.rows.row_start[seq],
                  last = min(end, int64_t{p.rows.row_start[seq + 1]});
    if (row >= last) continue;  // no rows
    taps.LoadHistory(p, seq, first, row - first, channel);
    if (p.u.dtype == DType::kFloat32) {
      ConvRun<float>(p, row, last, channel, taps);
    } else {
      ConvRun<Bf16>(p, row, last, channel, taps);
    }
    row = last;
  }
}

// The last width - 1 inputs of a sequence's `rows` rows from `first` on, to `to`, which may be its
// window: they are kept in registers until all are read.
template <int kVec>
__device__ void MoveWindow(const CausalConv1dParams& p, int32_t seq, int64_t first, int64_t rows,
                           int64_t channel, float* to) {
  const float* window = p.window + p.rows.slot[seq] * p.window_slot_stride + channel;
  float kept[kMaxWidth - 1][kVec];
#pragma unroll
  for (int j = 0; j < kMaxWidth - 1; ++j) {
    if (j >= p.width - 1) continue;
    const int64_t t = rows - (p.width - 1) + j;
    if (t >= 0) {
      LoadActs<kVec>(p.u.data, p.u.dtype, (first + t) * p.u_stride + channel, kept[j]);
    } else {
      LoadWide<kVec>(window + (p.width - 1 + t) * p.channels, kept[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < kMaxWidth - 1; ++j) {
    if (j < p.width - 1) StoreNarrow<kVec>(kept[j], to + j * p.channels);
  }
}

template <int kVec>
__global__ void __launch_bounds__(kThreads) KeepWindow(CausalConv1dParams p) {
  const int64_t channel = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kVec;
  if (channel >= p.channels) return;
  const int32_t seq = static_cast<int32_t>(blockIdx.x);
  const int64_t first = p.rows.row_start[seq], rows = p.rows.row_start[seq + 1] - first;
  if (rows == 0) return;
  MoveWindow<kVec>(p, seq, first, rows, channel,
                   p.window + p.rows.slot[seq] * p.window_slot_stride + channel);
}

// Before the windows of the sequences are replaced.
template <int kVec>
__global__ void __launch_bounds__(kThreads) KeepCheckpoints(CausalConv1dParams p) {
  const int64_t channel = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kVec;
  if (channel >= p.channels) return;
  const int64_t row = p.checkpoints.row[blockIdx.x], place = p.checkpoints.place[blockIdx.x];
  const int32_t seq = SequenceOf(p.rows.row_start, p.rows.num_seqs, row);
  const int64_t first = p.rows.row_start[seq];
  MoveWindow<kVec>(p, seq, first, row - first + 1, channel,
                   p.checkpoint_window + place * p.checkpoint_window_stride + channel);
}

template <int kVec, int kWidth>
__global__ void __launch_bounds__(kThreads) ConvStep(CausalConv1dParams p) {
  LetNextStart();
  const int64_t channel = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kVec;
  if (channel >= p.channels) return;
  const int32_t seq = static_cast<int32_t>(blockIdx.x);
  Taps<kVec, kWidth> taps(p, channel);
  WaitForInputs();
  const int64_t row = p.rows.row_start[seq];
  float next[kVec];
  LoadActs<kVec>(p.u.data, p.u.dtype, row * p.u_stride + channel, next);
  taps.LoadHistory(p, seq, row, 0, channel);
  taps.Push(next);
  float* window = p.window + p.rows.slot[seq] * p.window_slot_stride + channel;
#pragma unroll
  for (int j = 1; j < Taps<kVec, kWidth>::kCount; ++j) {
    if (j <= taps.skip) continue;
    StoreNarrow<kVec>(taps.input[j], window + (j - 1 - taps.skip) * p.channels);
  }
  taps.Store(p, row, channel);
}

template <int kVec, int kWidth>
absl::Status Run(const CausalConv1dParams& p, const Launch& launch) {
  constexpr const char* kName = "CausalConv1d";
  // As few idle threads as blocks of at most kThreads leave.
  const int64_t vectors = CeilDiv(p.channels, kVec), blocks = CeilDiv(vectors, kThreads);
  const dim3 block(static_cast<unsigned>(CeilDiv(vectors, blocks)));
  const unsigned across = static_cast<unsigned>(blocks);
  const dim3 checkpoints(static_cast<unsigned>(p.checkpoints.count), across);
  absl::Status kept = Start(launch, kName, KeepCheckpoints<kVec>, checkpoints, block, 0, p);
  if (!kept.ok()) return kept;
  if (p.rows.longest == 1 && p.rows.total_rows == p.rows.num_seqs) {
    return StartEarly(launch, kName, ConvStep<kVec, kWidth>,
                      dim3(static_cast<unsigned>(p.rows.num_seqs), across), block, 0, p);
  }
  const int rows_each = p.rows.total_rows >= 16384 ? 32 : p.rows.total_rows >= 4096 ? 16 : 4;
  const auto runs = static_cast<unsigned>(CeilDiv(p.rows.total_rows, rows_each));
  absl::Status s =
      Start(launch, kName, ConvRows<kVec, kWidth>, dim3(runs, across), block, 0, p, rows_each);
  if (!s.ok()) return s;
  return Start(launch, kName, KeepWindow<kVec>,
               dim3(static_cast<unsigned>(p.rows.num_seqs), across), block, 0, p);
}

absl::Status Check(const CausalConv1dParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, p.round_to_bf16, "CausalConv1d"); !s.ok()) return s;
  const bool ok = p.rows.num_seqs > 0 && p.rows.row_start != nullptr && p.rows.slot != nullptr &&
                  p.channels > 0 && p.width >= 2 && p.width <= kMaxWidth && p.u.data != nullptr &&
                  p.weight != nullptr && p.window != nullptr && p.out.data != nullptr &&
                  p.u_stride >= p.channels && p.out_stride >= p.channels &&
                  p.window_slot_stride >= 0 &&
                  (p.checkpoints.count == 0 || p.checkpoint_window != nullptr);
  return Require(ok, "CausalConv1d", "bad size, array or stride");
}

}  // namespace

absl::Status CausalConv1d(const CausalConv1dParams& p, const Launch& launch) {
  if (p.rows.num_rows() == 0) return absl::OkStatus();
  if (absl::Status s = Check(p, launch); !s.ok()) return s;
  const bool vectors = p.channels % kVector == 0 && TakesVectors(p.u.data, p.u_stride) &&
                       TakesVectors(p.out.data, p.out_stride) &&
                       TakesVectors(p.window, p.window_slot_stride) &&
                       TakesVectors(p.checkpoint_window, p.checkpoint_window_stride) &&
                       IsAligned(p.weight) && (p.bias == nullptr || IsAligned(p.bias));
  if (vectors && p.width == 4) return Run<kVector, 4>(p, launch);
  return Run<1, 0>(p, launch);
}

}  // namespace anabranch::kernels::cuda
