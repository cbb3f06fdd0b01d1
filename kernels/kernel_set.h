// The kernels of one kind of device, behind the same signatures: the forward pass calls them
// through a set and does not know where it runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/causal_conv1d.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/linear_step.h"
#include "kernels/moe.h"
#include "kernels/norm.h"
#include "kernels/sample.h"
#include "kernels/selective_scan.h"
#include "kernels/ssd_scan.h"

namespace anabranch::kernels {

// Queues or does the work, and returns what can be said about the parameters by then.
template <typename Params>
using Kernel = absl::Status (*)(const Params&, const Launch&);

// Each is described where its parameters are. Pointers of the parameters lie where the set runs;
// the counts are always the host's. A set is complete: no entry is null,
// but for `sample` where the logits are in host memory, and `ssd_packs_from` where checkpoints are
// never packed.
struct KernelSet {
  Kernel<EmbedParams> embed;
  Kernel<GemmParams> gemm;
  Kernel<LinearStepParams> linear_step;
  Kernel<RmsNormParams> rms_norm;
  Kernel<GatedRmsNormParams> gated_rms_norm;
  Kernel<CausalConv1dParams> causal_conv1d;
  Kernel<SelectiveScanParams> selective_scan;
  Kernel<SsdScanParams> ssd_scan;
  Kernel<SsdScanParams> ssd_fold;
  Kernel<RopeParams> rope;
  Kernel<AttentionParams> attention;
  Kernel<RouteParams> route;
  Kernel<ExpertsParams> experts;
  Kernel<GatedMulParams> gated_mul;
  Kernel<AddScaledParams> add_scaled;
  Kernel<ScaleParams> scale;
  Kernel<CopyRowsParams> copy_rows;
  Kernel<SumDirectionsParams> sum_directions;
  Kernel<SampleParams> sample;
  SsdPacksFrom* ssd_packs_from;
};

// All activations float32, all arrays in host memory.
const KernelSet& CpuKernels();

}  // namespace anabranch::kernels
