// The plain MLP, down(activation(up x)). Keeps no state.
#include "kernels/elementwise.h"
#include "runtime/mixer.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

class MlpMixer : public Mixer {
 public:
  explicit MlpMixer(const MlpSpec& spec) : spec_(spec) {}

  absl::Status Load(const std::string& prefix, WeightReader& weights) {
    ANABRANCH_ASSIGN_OR_RETURN(up_, weights.ReadLinear({prefix + "up_proj"}, spec_.bias));
    ANABRANCH_ASSIGN_OR_RETURN(down_, weights.ReadLinear({prefix + "down_proj"}, spec_.bias));
    return absl::OkStatus();
  }

  void DeclareState(int32_t layer, StateLayout& layout) override {}
  bool NormsInput() const override { return true; }

  absl::Status Run(const StepContext& step, const MixerInput& in, Acts y, bool add) const override {
    const int64_t rows = step.rows.num_rows(), width = spec_.width;
    const int64_t hidden = down_.out_features();
    ANABRANCH_ASSIGN_OR_RETURN(Acts inside, step.workspace->Take(rows * width));
    ANABRANCH_RETURN_IF_ERROR(Project(step, in, up_, inside, width));
    kernels::GatedMulParams params;
    params.activation = spec_.activation;
    params.rows = rows;
    params.width = params.in_stride = params.y_stride = width;
    params.gate = params.y = inside;
    ANABRANCH_RETURN_IF_ERROR(step.kernels->gated_mul(params, step.launch));
    return down_.Run(rows, inside, width, y, hidden, step, add);
  }

 private:
  MlpSpec spec_;
  Linear up_, down_;
};

}  // namespace

void ListTensors(const MlpSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out) {
  out.push_back({prefix + "up_proj.weight", {spec.width, hidden}});
  out.push_back({prefix + "down_proj.weight", {hidden, spec.width}});
  if (!spec.bias) return;
  out.push_back({prefix + "up_proj.bias", {spec.width}});
  out.push_back({prefix + "down_proj.bias", {hidden}});
}

MixerOr MakeMixer(const MlpSpec& spec, const std::string& prefix, WeightReader& weights) {
  auto mixer = std::make_unique<MlpMixer>(spec);
  ANABRANCH_RETURN_IF_ERROR(mixer->Load(prefix, weights));
  return mixer;
}

}  // namespace anabranch
