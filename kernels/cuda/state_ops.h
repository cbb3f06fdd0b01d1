// Operations on states that are resident in slots, without reading anything again: what
// runtime/state_merge.h, state_algebra.h and state_diff.h do with images, on the device. The
// formulas are theirs; sums run in double, so results differ from theirs in the last bits at most.
//
// A state consists of tensors, most of them recurrent, each an array of slots. Lists (tensors,
// slots, weights) lie on the host and travel with the launch; everything else on the device. Calls
// queue work on the launch's stream, or on the one they are given.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/launch.h"

namespace anabranch::kernels::cuda {

// The recurrent tensor of one layer and T, the time it has seen. A slot holds `groups` (heads or
// channels) of `size` contiguous elements. While T of a group grows by dt, its element i decays by
// exp(rates[group, i % num_rates] dt).
struct RecurrentTensor {
  float* state = nullptr;  // [slots, groups, size]
  int64_t slot_stride = 0;
  double* t = nullptr;  // [slots, groups]
  int64_t t_slot_stride = 0;
  const float* rates = nullptr;  // [groups, num_rates], negative
  int64_t groups = 0, size = 0;  // size: a multiple of num_rates
  int32_t num_rates = 1;
};

inline constexpr int32_t kMaxMergeInputs = 64;

// S = (prod P_k) S_O + sum_k W_k (S_k - P_k S_O) of slots that share the ancestor O, P_k = exp(A
// (T_k
// - T_O)); how W_k comes about is the method's (runtime/merge_weights.h).
enum class SlotMerge : uint8_t {
  kCompose,  // in no particular order: the mean over all orders
  kOrdered,  // one after the other; the last input is the latest
  kMean,     // the weighted mean of states and of T
};
enum class SlotMergeNorm : uint8_t {
  kNone,
  kWeights,  // kCompose: W_k divided by their sum
  kInputs,   // each group is scaled to the weighted mean of the inputs' norms
};
struct MergeSlotsParams {
  absl::Span<const RecurrentTensor> tensors;
  absl::Span<const int32_t> inputs;  // 1 .. kMaxMergeInputs
  int32_t ancestor = -1;             // -1: nothing was read
  int32_t output = 0;                // neither an input nor the ancestor
  SlotMerge method = SlotMerge::kCompose;
  SlotMergeNorm norm = SlotMergeNorm::kNone;
  absl::Span<const double> weights;  // of the inputs, > 0; empty: all 1
};
absl::Status MergeSlots(const MergeSlotsParams& params, const Launch& launch);

// S = sum_k sign_k S_k, each aged to the time of the first term, and then by `aging` of that time.
// The span's own state (S_end - P S_begin), a state without a span, and decay are of this form.
inline constexpr int kMaxTerms = 3;
struct CombineSlotsParams {
  absl::Span<const RecurrentTensor> tensors;
  absl::Span<const int32_t> slots;  // 1 .. kMaxTerms
  absl::Span<const double> signs;   // as many, the first 1
  double aging = 0;                 // >= 0
  bool from_zero = false;           // T is sum_k sign_k T_k, not the time of the first
  int32_t output = 0;               // may be one of `slots`
};
absl::Status CombineSlots(const CombineSlotsParams& params, const Launch& launch);

// For every group of every tensor, one after the other: sum a^2, sum b^2, sum a b, sum (a - b)^2.
struct CompareSlotsParams {
  absl::Span<const RecurrentTensor> tensors;
  int32_t a = 0, b = 0;
  double* sums = nullptr;  // device, [all groups, 4]
};
absl::Status CompareSlots(const CompareSlotsParams& params, const Launch& launch);

// Copies blocks of memory that do not overlap, many in one launch: a fork's copy when one of the
// two is written is one block for each tensor of its slot.
struct BlockCopy {
  const void* from = nullptr;
  void* to = nullptr;
  int64_t bytes = 0;
};
struct CopyBlocksParams {
  absl::Span<const BlockCopy> blocks;
};
absl::Status CopyBlocks(const CopyBlocksParams& params, cudaStream_t stream);

// Sets every byte of the blocks (their `from` is not looked at).
struct FillBlocksParams {
  absl::Span<const BlockCopy> blocks;
  uint8_t byte = 0;
};
absl::Status FillBlocks(const FillBlocksParams& params, cudaStream_t stream);

// Bytes of one tensor in every slot.
struct SlotBytes {
  void* base = nullptr;
  int64_t slot_stride = 0;  // bytes between slots
  int64_t bytes = 0;
};
// The weighted mean of float32 tensors: of windows, when states are merged in no order.
struct MeanSlotsParams {
  absl::Span<const SlotBytes> tensors;  // whole floats
  absl::Span<const int32_t> inputs;     // 1 .. kMaxMergeInputs
  absl::Span<const double> weights;     // > 0; empty: all 1
  int32_t output = 0;                   // may be an input
};
absl::Status MeanSlots(const MeanSlotsParams& params, const Launch& launch);

}  // namespace anabranch::kernels::cuda
