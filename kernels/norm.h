// Root-mean-square norms (MODELS.md 2.1). Sums of squares run in float32 in one fixed order per
// row.
#pragma once

#include "kernels/launch.h"

namespace anabranch::kernels {

// y = weight * x / sqrt(mean(x^2) + eps), over each of `groups` equal parts of a row. A null weight
// means 1. With round_to_bf16 the normalised value is rounded before, and the product after, the
// weight is applied, as the reference does in bfloat16.
struct RmsNormParams {
  int64_t rows = 0, width = 0;
  int32_t groups = 1;
  ConstActs x;  // [rows, width]; y may alias it
  int64_t x_stride = 0;
  const float* weight = nullptr;  // [width] or null
  float eps = 0;
  Acts y;
  int64_t y_stride = 0;
  bool round_to_bf16 = false;
};
absl::Status RmsNorm(const RmsNormParams& params, const Launch& launch);

// The gated norms of Mamba-2: kGateFirst normalises x * silu(z); kNormFirst multiplies the
// normalised, weighted x by silu(z); kGateOnly is x * silu(z) without a norm (weight ignored).
enum class GateOrder : uint8_t { kGateFirst, kNormFirst, kGateOnly };
struct GatedRmsNormParams {
  RmsNormParams norm;
  ConstActs z;  // [rows, width]
  int64_t z_stride = 0;
  GateOrder order = GateOrder::kGateFirst;
};
absl::Status GatedRmsNorm(const GatedRmsNormParams& params, const Launch& launch);

}  // namespace anabranch::kernels
