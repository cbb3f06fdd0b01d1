#include "runtime/mixer.h"

#include <cmath>

#include "kernels/elementwise.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

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

StateEntry WindowEntry(int32_t layer, int32_t conv_width, int64_t channels, kernels::DType dtype) {
  const bool bf16 = dtype == kernels::DType::kBFloat16;
  return {layer,
          StateKind::kWindow,
          StateDType::kFloat32,
          {conv_width - 1, channels},
          bf16 ? StateDType::kBFloat16 : StateDType::kFloat32};
}

StateEntry RecurrentEntry(int32_t layer, kernels::DType dtype, std::vector<int64_t> shape) {
  const StateDType kept =
      dtype == kernels::DType::kBFloat16 ? StateDType::kBFloat16 : StateDType::kFloat32;
  return {layer, StateKind::kRecurrent, kept, std::move(shape), kept};
}

kernels::GatedRmsNormParams MixerInput::Norm(int64_t rows, int64_t width) const {
  kernels::GatedRmsNormParams params;
  params.norm.rows = rows;
  params.norm.width = params.norm.x_stride = params.norm.y_stride = width;
  params.norm.x = x;
  params.norm.y = normed;
  params.norm.weight = norm_weight;
  params.norm.eps = norm_eps;
  return params;
}

bool RoundsForWindow(kernels::DType dtype, kernels::DType activations) {
  return dtype == kernels::DType::kBFloat16 && activations != dtype;
}

absl::Status RoundForWindow(const StepContext& step, kernels::DType dtype, int64_t channels, Acts x,
                            int64_t x_stride) {
  if (!RoundsForWindow(dtype, x.dtype)) return absl::OkStatus();
  kernels::ScaleParams params;
  params.rows = step.rows.num_rows();
  params.width = channels;
  params.x = params.y = x;
  params.x_stride = params.y_stride = x_stride;
  params.round_to_bf16 = true;
  return step.kernels->scale(params, step.launch);
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
