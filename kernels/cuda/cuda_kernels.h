// The CUDA kernels, by the names of their CPU counterparts. All arrays lie in device memory, the
// counts of PackedRows on the host too. A call only queues work on the stream of `launch.cuda`
// (never null); errors of the work itself show at the next synchronisation. Sizes are checked as on
// the CPU; what lies in device memory (row starts, slots, ids, pages) is trusted: the forward pass
// has validated the batch on the host.
//
// Activations are float32 or bfloat16, mixed as the parameters say; arithmetic, state, norms and
// sums are float32. round_to_bf16 is not implemented (INVALID_ARGUMENT): bfloat16 activations take
// its place.
//
// A result for one row depends only on its own sequence and on how that sequence's rows are split
// into launches, not on what else is in a launch; matrix products may depend on the number of rows.
#pragma once

#include "kernels/kernel_set.h"

namespace anabranch::kernels::cuda {

absl::Status Embed(const EmbedParams& params, const Launch& launch);
absl::Status Gemm(const GemmParams& params, const Launch& launch);
absl::Status LinearStep(const LinearStepParams& params, const Launch& launch);
absl::Status RmsNorm(const RmsNormParams& params, const Launch& launch);
absl::Status GatedRmsNorm(const GatedRmsNormParams& params, const Launch& launch);
absl::Status CausalConv1d(const CausalConv1dParams& params, const Launch& launch);
absl::Status SelectiveScan(const SelectiveScanParams& params, const Launch& launch);
absl::Status SsdScan(const SsdScanParams& params, const Launch& launch);
absl::Status SsdFold(const SsdScanParams& params, const Launch& launch);
absl::Status Rope(const RopeParams& params, const Launch& launch);
absl::Status Attention(const AttentionParams& params, const Launch& launch);
absl::Status Route(const RouteParams& params, const Launch& launch);
absl::Status Experts(const ExpertsParams& params, const Launch& launch);
absl::Status GatedMul(const GatedMulParams& params, const Launch& launch);
absl::Status AddScaled(const AddScaledParams& params, const Launch& launch);
absl::Status Scale(const ScaleParams& params, const Launch& launch);
absl::Status CopyRows(const CopyRowsParams& params, const Launch& launch);
absl::Status SumDirections(const SumDirectionsParams& params, const Launch& launch);
absl::Status Sample(const SampleParams& params, const Launch& launch);
SsdPacksFrom SsdPacksCheckpointsFrom;

const KernelSet& Kernels();

}  // namespace anabranch::kernels::cuda
