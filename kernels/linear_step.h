// A linear layer with what stands around it in a mixer: a norm of its input before it, a causal
// convolution of some of its outputs behind it.
//
// For a few rows of one token each a device does them in one kernel, since there the start of a
// kernel takes longer than its work; the sums of the norm are then in another order than
// RmsNorm's. Otherwise they are what RmsNorm, Gemm and CausalConv1d give, one after the other.
#pragma once

#include "kernels/causal_conv1d.h"
#include "kernels/gemm.h"
#include "kernels/norm.h"

namespace anabranch::kernels {

struct LinearStepParams {
  // norm.y is gemm.x, which a device may leave unwritten. Without z there is no gate, and `order`
  // does not count.
  GatedRmsNormParams norm;
  GemmParams gemm;
  // 0 channels: none. Its u are columns of gemm.y, which may be left unwritten.
  CausalConv1dParams conv;
};
absl::Status LinearStep(const LinearStepParams& params, const Launch& launch);

}  // namespace anabranch::kernels
