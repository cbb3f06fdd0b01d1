#include "kernels/kernel_set.h"

namespace anabranch::kernels {

const KernelSet& CpuKernels() {
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
      .sample = nullptr,
      .ssd_packs_from = nullptr,
  };
  return kSet;
}

}  // namespace anabranch::kernels
