// Mixtures of experts: which experts a row goes to, and the experts' feed-forwards over rows
// grouped by expert.
#pragma once

#include <cstdint>

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/launch.h"

namespace anabranch::kernels {

// How logits become the chosen experts and their weights (MODELS.md 2.7).
enum class RouterKind : uint8_t {
  kSoftmaxThenTopK,  // softmax over all experts; the largest of them
  kTopKThenSoftmax,  // the largest logits; softmax over those
  kSigmoid,          // the largest of sigmoid + bias; their sigmoids, without the bias
};

struct RouteParams {
  RouterKind kind = RouterKind::kSoftmaxThenTopK;
  int64_t rows = 0;
  int32_t experts = 0, chosen = 0;  // 1 <= chosen <= experts
  ConstActs logits;                 // [rows, experts], dense
  float* scores = nullptr;          // scratch [rows, experts]
  // kSigmoid only: added for choosing, [experts] or null. With groups > 1 only experts of the
  // `top_groups` best of `groups` equal parts are chosen; a part is as good as its two best.
  const float* bias = nullptr;
  int32_t groups = 1, top_groups = 1;
  bool normalize = false;      // divide the weights by their sum
  float scale = 1;             // of the weights, after that
  bool round_to_bf16 = false;  // of the weights
  int32_t* expert = nullptr;   // [rows, chosen], ascending in each row; equal scores: lower index
  float* weight = nullptr;     // [rows, chosen]
};
absl::Status Route(const RouteParams& params, const Launch& launch);

// y[r] = sum over a row's chosen experts e of weight * down_e(activation(up_e x[r])), with gated
// experts down_e(activation(gate_e x) * (up_e x)). The sum runs over ascending experts.
struct ExpertsParams {
  int64_t rows = 0, width = 0;  // `width` of x and y
  int64_t expert_width = 0;     // of an expert's inside
  int32_t experts = 0, chosen = 0;
  bool gated = false;
  Activation activation = Activation::kSilu;
  ConstActs x;                              // [rows, width], dense
  const int32_t* expert = nullptr;          // [rows, chosen], each in [0, experts), as from Route
  const float* weight = nullptr;            // [rows, chosen]
  const PackedMatrix* up = nullptr;         // [experts]; gated: gate's rows first, then up's
  const PackedMatrix* down = nullptr;       // [experts]
  Acts gathered;                            // scratch [rows * chosen, width]
  Acts inside;                              // scratch [rows * chosen, expert_width, twice if gated]
  int32_t *slot = nullptr, *end = nullptr;  // scratch [rows * chosen], [experts + 1]
  Acts y;                                   // [rows, width], dense
  bool round_to_bf16 = false;
};
absl::Status Experts(const ExpertsParams& params, const Launch& launch);

}  // namespace anabranch::kernels
