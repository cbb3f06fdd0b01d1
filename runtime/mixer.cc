#include "runtime/mixer.h"

#include <cmath>

#include "statestore/base/status_macros.h"

namespace anabranch {

StateEntry WindowEntry(int32_t layer, int32_t conv_width, int64_t channels, kernels::DType dtype) {
  const bool bf16 = dtype == kernels::DType::kBFloat16;
  return {layer,
          StateKind::kWindow,
          StateDType::kFloat32,
          {conv_width - 1, channels},
          bf16 ? StateDType::kBFloat16 : StateDType::kFloat32};
}

absl::StatusOr<Buffer> ReadDecay(const std::string& name, WeightReader& weights) {
  ANABRANCH_ASSIGN_OR_RETURN(Buffer decay, weights.ReadFloats(name));
  const size_t count = decay.size() / sizeof(float);
  for (size_t i = 0; i < count; ++i) {
    decay.floats()[i] = -std::exp(decay.floats()[i]);
    if (!std::isfinite(decay.floats()[i])) {
      return absl::DataLossError("tensor '" + name + "' has values whose exponential is infinite");
    }
  }
  return decay;
}

}  // namespace anabranch
