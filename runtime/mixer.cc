#include "runtime/mixer.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "kernels/int8_state.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Rows of x [rows of the step, width] to bfloat16, in place.
absl::Status Round(const StepContext& step, int64_t width, Acts x, int64_t x_stride) {
  kernels::ScaleParams params;
  params.rows = step.rows.num_rows();
  params.width = width;
  params.x = params.y = x;
  params.x_stride = params.y_stride = x_stride;
  params.round_to_bf16 = true;
  return step.kernels->scale(params, step.launch);
}

// The norm of a layer's input.
kernels::GatedRmsNormParams NormOf(const StepContext& step, const MixerInput& in,
                                   const Linear& layer) {
  kernels::GatedRmsNormParams params;
  params.norm.rows = step.rows.num_rows();
  params.norm.width = params.norm.x_stride = params.norm.y_stride = layer.in_features();
  params.norm.x = in.x;
  params.norm.y = in.normed;
  params.norm.weight = in.norm_weight;
  params.norm.eps = in.norm_eps;
  return params;
}

}  // namespace

void ListTensors(const ResidualStep& step, int64_t hidden, std::vector<ExpectedTensor>& out) {
  const auto list = [&](const std::string& prefix, const MixerSpec& mixer) {
    std::visit([&](const auto& spec) { ListTensors(spec, prefix, hidden, out); }, mixer);
  };
  out.push_back({step.norm, {hidden}});
  for (const Branch& branch : step.branches) list(branch.prefix, branch.mixer);
  for (const ChainStage& stage : step.side_chain) {
    const bool first = &stage == &step.side_chain.front();
    if (!stage.norm.empty()) out.push_back({stage.norm, {first ? 2 * hidden : hidden}});
    list(stage.prefix, stage.mixer);
  }
}

absl::Status CheckStateDType(kernels::DType dtype, int64_t state_dim) {
  if (dtype != kernels::DType::kInt8 || state_dim % kernels::kInt8Group == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "recurrent states cannot be int8: the model has a state_dim of ", state_dim,
      ", which is not a multiple of ", kernels::kInt8Group, "; use bfloat16 or float32"));
}

StateEntry WindowEntry(int32_t layer, int32_t conv_width, int64_t channels, kernels::DType dtype) {
  const bool bf16 = dtype == kernels::DType::kBFloat16;
  return {layer,
          StateKind::kWindow,
          StateDType::kFloat32,
          {conv_width - 1, channels},
          bf16 ? StateDType::kBFloat16 : StateDType::kFloat32};
}

StateEntry RecurrentEntry(int32_t layer, kernels::DType dtype, std::vector<int64_t> shape) {
  const StateDType kept = dtype == kernels::DType::kInt8       ? StateDType::kInt8
                          : dtype == kernels::DType::kBFloat16 ? StateDType::kBFloat16
                                                               : StateDType::kFloat32;
  return {layer, StateKind::kRecurrent, kept, std::move(shape), kept};
}

absl::Status Project(const StepContext& step, const MixerInput& in, const Linear& layer, Acts y,
                     int64_t y_stride) {
  if (in.norm_weight != nullptr) {
    return layer.RunStep(NormOf(step, in, layer), nullptr, y, y_stride, step);
  }
  return layer.Run(step.rows.num_rows(), in.x, layer.in_features(), y, y_stride, step);
}

absl::Status ProjectAndConvolve(const StepContext& step, const MixerInput& in, const Linear& layer,
                                kernels::DType dtype, Acts y, int64_t y_stride, int64_t first,
                                kernels::CausalConv1dParams conv) {
  conv.u = y + first;
  conv.u_stride = y_stride;
  const bool rounds = dtype == kernels::DType::kBFloat16 && y.dtype != dtype;
  if (in.norm_weight != nullptr && !rounds) {
    return layer.RunStep(NormOf(step, in, layer), &conv, y, y_stride, step);
  }
  ANABRANCH_RETURN_IF_ERROR(Project(step, in, layer, y, y_stride));
  if (rounds) ANABRANCH_RETURN_IF_ERROR(Round(step, conv.channels, y + first, y_stride));
  return step.kernels->causal_conv1d(conv, step.launch);
}

absl::StatusOr<Decay> ReadDecay(const std::string& name, WeightReader& weights) {
  Decay decay;
  ANABRANCH_ASSIGN_OR_RETURN(decay.host, weights.ReadHostFloats(name));
  const size_t count = decay.host.size() / sizeof(float);
  for (size_t i = 0; i < count; ++i) {
    float& value = decay.host.floats()[i];
    value = -std::exp(value);
    if (!std::isfinite(value)) {
      return absl::DataLossError("tensor '" + name + "' has values whose exponential is infinite");
    }
  }
  ANABRANCH_ASSIGN_OR_RETURN(decay.placed, weights.Place(decay.host));
  return decay;
}

}  // namespace anabranch
