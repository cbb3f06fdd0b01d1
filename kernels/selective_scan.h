// The Mamba-1 recurrence over a chunk of tokens (MODELS.md 2.3 items 5-8), per channel i:
//   dt = softplus(dt_raw + dt_bias);  h[n] = exp(dt * A[i,n]) * h[n] + dt * u * B[n]
//   y = (sum_n h[n] * C[n] + D[i] * u) * silu(z)
// Tokens are applied in order with h in registers, so any split of a sequence gives the same bits.
#pragma once

#include "kernels/checkpoints.h"
#include "kernels/launch.h"

namespace anabranch::kernels {

struct SelectiveScanParams {
  PackedRows rows;
  int64_t channels = 0;   // I
  int32_t state_dim = 0;  // N
  ConstActs u;            // [rows, channels], after convolution
  ConstActs dt;           // [rows, channels], before bias and softplus
  ConstActs b;            // [rows, state_dim]
  ConstActs c;            // [rows, state_dim]
  ConstActs z;            // [rows, channels], gate before silu; null: no gate
  int64_t u_stride = 0, dt_stride = 0, b_stride = 0, c_stride = 0, z_stride = 0;
  const float* a = nullptr;        // [channels, state_dim], negative: -exp(A_log)
  const float* d = nullptr;        // [channels]
  const float* dt_bias = nullptr;  // [channels]
  // [slots, channels, state_dim]; read and updated. float32; or bfloat16 or int8, into which
  // it is rounded where the launch ends (kernels/state_rounding.h), by the seed and the positions.
  Acts state;
  int64_t state_slot_stride = 0;
  // In int8 (kernels/int8_state.h): bytes from a slot's first code to its first scale, as in the
  // ring. state_dim is a multiple of 16 then.
  int64_t state_scales = 0;
  uint32_t rounding_seed = 0;
  const int64_t* positions = nullptr;  // [seqs]: tokens read before; not for float32 states
  double* t_sum = nullptr;  // [slots, channels]: sum of dt since the first token; read and updated
  int64_t t_slot_stride = 0;
  Acts y;  // [rows, channels]; may not alias the inputs
  int64_t y_stride = 0;
  bool round_to_bf16 = false;  // round y before the gate and after it
  Checkpoints checkpoints;     // the ring's entries look like a slot's:
  Acts checkpoint_state;       // [places, channels, state_dim], dtype of the state
  int64_t checkpoint_state_stride = 0;
  double* checkpoint_t = nullptr;  // [places, channels]
  int64_t checkpoint_t_stride = 0;
};

absl::Status SelectiveScan(const SelectiveScanParams& params, const Launch& launch);

}  // namespace anabranch::kernels
