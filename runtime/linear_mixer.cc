// One linear layer without a bias, y = W x: the last stage of a side chain. Keeps no state.
#include "runtime/mixer.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

class LinearMixer : public Mixer {
 public:
  explicit LinearMixer(Linear linear) : linear_(std::move(linear)) {}

  void DeclareState(int32_t layer, StateLayout& layout) override {}

  absl::Status Run(const StepContext& step, const MixerInput& in, Acts y, bool add) const override {
    return linear_.Run(step.rows.num_rows(), in.x, linear_.in_features(), y, linear_.out_features(),
                       step, add);
  }

 private:
  Linear linear_;
};

}  // namespace

void ListTensors(const LinearSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out) {
  out.push_back({prefix + spec.name + ".weight", {hidden, hidden}});
}

MixerOr MakeMixer(const LinearSpec& spec, const std::string& prefix, WeightReader& weights) {
  ANABRANCH_ASSIGN_OR_RETURN(Linear linear, weights.ReadLinear({prefix + spec.name}, false));
  return std::make_unique<LinearMixer>(std::move(linear));
}

}  // namespace anabranch
