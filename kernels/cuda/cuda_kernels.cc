#include "kernels/cuda/cuda_kernels.h"

namespace anabranch::kernels::cuda {

const KernelSet& Kernels() {
  static constexpr KernelSet kSet = {
      .embed = Embed,
      .gemm = Gemm,
      .linear_step = LinearStep,
      .rms_norm = RmsNorm,
      .gated_rms_norm = GatedRmsNorm,
      .causal_conv1d = CausalConv1d,
      .selective_scan = SelectiveScan,
      .ssd_scan = SsdScan,
      .ssd_fold = SsdFold,
      .rope = Rope,
      .attention = Attention,
      .route = Route,
      .experts = Experts,
      .gated_mul = GatedMul,
      .add_scaled = AddScaled,
      .scale = Scale,
      .copy_rows = CopyRows,
      .sum_directions = SumDirections,
      .sample = Sample,
      .ssd_packs_from = SsdPacksCheckpointsFrom,
  };
  return kSet;
}

}  // namespace anabranch::kernels::cuda
