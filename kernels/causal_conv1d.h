// Depthwise causal convolution over time, then an optional silu (MODELS.md 2.2):
//   out[t, c] = act(bias[c] + sum_j weight[c, j] * u[t - K + 1 + j, c]),  j ascending.
// u before the first row comes from the sequence's saved window; afterwards the window holds the
// last K-1 inputs. A sequence that has read nothing has a window of zeros.
#pragma once

#include "kernels/checkpoints.h"
#include "kernels/launch.h"

namespace anabranch::kernels {

struct CausalConv1dParams {
  PackedRows rows;
  int64_t channels = 0;
  int32_t width = 4;  // K, 2..8
  ConstActs u;        // [rows, channels], stride u_stride
  int64_t u_stride = 0;
  const float* weight = nullptr;  // [width, channels]: transposed so that channels are contiguous
  const float* bias = nullptr;    // [channels] or null
  float* window = nullptr;        // [slots, width - 1, channels], oldest first; read and updated
  int64_t window_slot_stride = 0;
  Acts out;  // [rows, channels], stride out_stride; may not alias u
  int64_t out_stride = 0;
  bool silu = true;
  bool round_to_bf16 = false;
  Checkpoints checkpoints;
  float* checkpoint_window = nullptr;  // [places, width - 1, channels]
  int64_t checkpoint_window_stride = 0;
};

absl::Status CausalConv1d(const CausalConv1dParams& params, const Launch& launch);

}  // namespace anabranch::kernels
