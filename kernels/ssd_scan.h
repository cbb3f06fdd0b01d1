// The Mamba-2 recurrence over a chunk of tokens (MODELS.md 2.4 items 3-7), per head h of group g:
//   dt = clamp(softplus(dt_raw + dt_bias), dt_lo, dt_hi);  a = exp(dt * A)
//   S = a * S + (dt * x) outer B;   y = S C + D * x
// The CPU kernel walks the chunk with blocks of S held in registers: each token is applied in
// order, so any split of a sequence gives the same bits, and it needs no more arithmetic than the
// chunked dual form at these sizes (docs/ARCHITECTURE.md, "Canonical states").
#pragma once

#include "kernels/checkpoints.h"
#include "kernels/launch.h"

namespace anabranch::kernels {

// Tokens that are not in S yet. Of what a step of one token costs on a device, writing S is half.
// So a sequence may leave S as it is for some steps: each reads it and adds what the pending tokens
// give, sum over k of (C . B_k) * dt_k * exp(A * (dt_k+1 + ... + dt)) * x_k, and one in a few folds
// them in. How many are pending is the caller's to know; T is up to date at every step.
struct SsdPending {
  static constexpr int32_t kMost = 15;

  int32_t room = 0;       // tokens that a slot has room for, at most kMost. 0: no sequence defers
  int32_t deferring = 0;  // how many sequences of the launch defer: one row each
  // [seqs]: tokens pending before the launch, or -1: the sequence does not defer, and none are.
  const int32_t* before = nullptr;
  // [seqs]: and after its row: one more, at most `room`; or 0: all of them are folded into S.
  const int32_t* after = nullptr;
  // By slot and token, the oldest first, as the activations are; dt after bias, softplus, limits.
  Acts x;               // [slots, room, heads * head_dim]
  Acts b;               // [slots, room, groups * state_dim]
  float* dt = nullptr;  // [slots, room, heads]
  int64_t x_slot_stride = 0, b_slot_stride = 0, dt_slot_stride = 0;
  // A device's own, from one kernel of a launch to the next: what all rows of a head's S share. How
  // much of each token's x is in y; the last is what is left of S. Nothing between launches.
  static constexpr int32_t kShares = kMost + 2;
  float* share = nullptr;  // [slots, heads, kShares]
  int64_t share_slot_stride = 0;

#ifdef __CUDACC__
  __host__ __device__
#endif
      bool
      Defers(int32_t seq) const {
    return deferring > 0 && before[seq] >= 0;
  }
};

struct SsdScanParams {
  PackedRows rows;
  int32_t heads = 0, head_dim = 0, state_dim = 0, groups = 1;
  ConstActs x;   // [rows, heads * head_dim]
  ConstActs b;   // [rows, groups * state_dim]
  ConstActs c;   // [rows, groups * state_dim]
  ConstActs dt;  // [rows, heads], before bias and softplus
  int64_t x_stride = 0, b_stride = 0, c_stride = 0, dt_stride = 0;
  const float* a = nullptr;        // [heads], negative: -exp(A_log)
  const float* d = nullptr;        // [heads]
  const float* dt_bias = nullptr;  // [heads]
  float dt_lo = 0, dt_hi = 0;      // dt_hi may be infinity
  // [slots, heads, head_dim, state_dim]; read and updated. float32; or bfloat16 or int8, into which
  // it is rounded where the launch ends (kernels/state_rounding.h), by the seed and the positions.
  Acts state;
  int64_t state_slot_stride = 0;
  // In int8 (kernels/int8_state.h): bytes from a slot's first code to its first scale, as in the
  // ring. state_dim is a multiple of 16 then.
  int64_t state_scales = 0;
  uint32_t rounding_seed = 0;
  const int64_t* positions = nullptr;  // [seqs]: tokens read before; not for float32 states
  double* t_sum = nullptr;  // [slots, heads]: sum of dt since the first token; read and updated
  int64_t t_slot_stride = 0;
  Acts y;  // [rows, heads * head_dim]; may not alias the inputs
  int64_t y_stride = 0;
  bool round_to_bf16 = false;
  SsdPending pending;       // a sequence that defers has no checkpoints
  Checkpoints checkpoints;  // the ring's entries look like a slot's:
  Acts checkpoint_state;    // [places, heads, head_dim, state_dim], dtype of the state
  int64_t checkpoint_state_stride = 0;
  double* checkpoint_t = nullptr;  // [places, heads]
  int64_t checkpoint_t_stride = 0;
};

absl::Status SsdScan(const SsdScanParams& params, const Launch& launch);

// Of how many rows of a sequence in a launch on a scan of these sizes and dtypes can pack its
// checkpoints (Checkpoints::packed); 0: never. It is an error to ask for it otherwise.
using SsdPacksFrom = int32_t(int64_t head_dim, int64_t state_dim, DType activations, DType state,
                             const Launch& launch);

// Folds what is pending into S, of the sequences that have pending.before > 0 and pending.after 0.
// Reads no rows: of `params` the sizes, slots, A, the state with seed and positions, and `pending`.
absl::Status SsdFold(const SsdScanParams& params, const Launch& launch);

}  // namespace anabranch::kernels
