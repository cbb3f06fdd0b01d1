#include "kernels/linear_step.h"

namespace anabranch::kernels {

absl::Status LinearStep(const LinearStepParams& p, const Launch& launch) {
  const bool gated = p.norm.z.data != nullptr;
  absl::Status s = gated ? GatedRmsNorm(p.norm, launch) : RmsNorm(p.norm.norm, launch);
  if (s.ok()) s = Gemm(p.gemm, launch);
  if (s.ok() && p.conv.channels > 0) s = CausalConv1d(p.conv, launch);
  return s;
}

}  // namespace anabranch::kernels
