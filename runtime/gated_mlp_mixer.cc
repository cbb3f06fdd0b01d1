// The gated MLP, down(activation(gate x) * (up x)). Keeps no state.
#include <optional>

#include "absl/strings/str_cat.h"
#include "kernels/elementwise.h"
#include "runtime/adapter.h"
#include "runtime/mixer.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

std::string AdapterPrefix(const GatedMlpSpec& spec, const std::string& prefix) {
  return absl::StrCat(prefix, spec.in_names.front(), "_adapter_list.", spec.adapter.index, ".");
}

class GatedMlpMixer : public Mixer {
 public:
  explicit GatedMlpMixer(const GatedMlpSpec& spec) : spec_(spec) {}

  absl::Status Load(const std::string& prefix, WeightReader& weights) {
    std::vector<std::string> names;
    for (const std::string& name : spec_.in_names) names.push_back(prefix + name);
    ANABRANCH_ASSIGN_OR_RETURN(in_, weights.ReadLinear(names, spec_.bias));
    ANABRANCH_ASSIGN_OR_RETURN(out_, weights.ReadLinear({prefix + spec_.out_name}, spec_.bias));
    if (spec_.adapter.rank != 0) {
      ANABRANCH_ASSIGN_OR_RETURN(adapter_, Adapter::Load(AdapterPrefix(spec_, prefix), weights));
    }
    return in_.ScaleSections({{spec_.width, spec_.gate_scale}, {spec_.width, 1}}, weights);
  }

  void DeclareState(int32_t layer, StateLayout& layout) override {}
  bool NormsInput() const override { return !adapter_.has_value(); }  // it reads the same rows

  absl::Status Run(const StepContext& step, const MixerInput& in, Acts y, bool add) const override {
    const int64_t rows = step.rows.num_rows();
    const int64_t hidden = out_.out_features();
    const int64_t width = spec_.width;
    ANABRANCH_ASSIGN_OR_RETURN(Acts gate_up, step.workspace->Take(rows * 2 * width));
    ANABRANCH_ASSIGN_OR_RETURN(Acts product, step.workspace->Take(rows * width));
    ANABRANCH_RETURN_IF_ERROR(Project(step, in, in_, gate_up, 2 * width));
    if (adapter_) {
      ANABRANCH_RETURN_IF_ERROR(adapter_->Run(step, in.x, hidden, gate_up, 2 * width));
    }
    kernels::GatedMulParams params;
    params.activation = spec_.activation;
    params.rows = rows;
    params.width = width;
    params.gate = gate_up;
    params.up = gate_up + width;
    params.in_stride = 2 * width;
    params.y = product;
    params.y_stride = width;
    ANABRANCH_RETURN_IF_ERROR(step.kernels->gated_mul(params, step.launch));
    return out_.Run(rows, product, width, y, hidden, step, add);
  }

 private:
  GatedMlpSpec spec_;
  Linear in_, out_;
  std::optional<Adapter> adapter_;
};

}  // namespace

void ListTensors(const GatedMlpSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out) {
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns) {
    out.push_back({prefix + name + ".weight", {rows, columns}});
    if (spec.bias) out.push_back({prefix + name + ".bias", {rows}});
  };
  const int64_t rows = 2 * spec.width / static_cast<int64_t>(spec.in_names.size());
  for (const std::string& name : spec.in_names) add(name, rows, hidden);
  add(spec.out_name, hidden, spec.width);
  if (spec.adapter.rank == 0) return;
  Adapter::ListTensors(AdapterPrefix(spec, prefix), spec.adapter.rank, hidden, rows, out);
}

MixerOr MakeMixer(const GatedMlpSpec& spec, const std::string& prefix, WeightReader& weights) {
  auto mixer = std::make_unique<GatedMlpMixer>(spec);
  ANABRANCH_RETURN_IF_ERROR(mixer->Load(prefix, weights));
  return mixer;
}

}  // namespace anabranch
