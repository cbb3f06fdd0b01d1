// Experts: a router chooses a few MLPs for each token and weighs their sum. Keeps no state.
#include "absl/strings/str_cat.h"
#include "kernels/moe.h"
#include "runtime/mixer.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr char kLatentIn[] = "fc1_latent_proj", kLatentOut[] = "fc2_latent_proj";

std::string ExpertPrefix(const std::string& prefix, int64_t expert) {
  return absl::StrCat(prefix, "experts.", expert, ".");
}

std::string ChoiceBias(const MoeSpec& spec, const std::string& prefix) {
  return prefix + spec.router_name + ".e_score_correction_bias";
}

class MoeMixer : public Mixer {
 public:
  explicit MoeMixer(const MoeSpec& spec) : spec_(spec) {}

  absl::Status Load(const std::string& prefix, WeightReader& weights);
  void DeclareState(int32_t layer, StateLayout& layout) override {}
  bool CanAdd() const override { return spec_.latent != 0; }
  absl::Status Run(const StepContext& step, const MixerInput& in, Acts y, bool add) const override;

 private:
  absl::Status LoadExperts(const std::string& prefix, WeightReader& weights);
  absl::Status Route(const StepContext& step, ConstActs x, int32_t* expert, float* weight) const;
  absl::Status RunExperts(const StepContext& step, ConstActs x, const int32_t* expert,
                          const float* weight, Acts y) const;

  MoeSpec spec_;
  Linear router_, latent_in_, latent_out_;
  Buffer choice_bias_;
  std::vector<Linear> in_, out_;  // by expert
  std::vector<kernels::PackedMatrix> in_matrices_, out_matrices_;
};

absl::Status MoeMixer::LoadExperts(const std::string& prefix, WeightReader& weights) {
  if (spec_.stacked) {
    ANABRANCH_ASSIGN_OR_RETURN(in_, weights.ReadLinears(prefix + spec_.stacked_in));
    ANABRANCH_ASSIGN_OR_RETURN(out_, weights.ReadLinears(prefix + spec_.stacked_out));
  }
  for (int32_t e = 0; e < spec_.experts && !spec_.stacked; ++e) {
    std::vector<std::string> names;
    for (const std::string& name : spec_.in_names) names.push_back(ExpertPrefix(prefix, e) + name);
    ANABRANCH_ASSIGN_OR_RETURN(Linear in, weights.ReadLinear(names, false));
    ANABRANCH_ASSIGN_OR_RETURN(
        Linear out, weights.ReadLinear({ExpertPrefix(prefix, e) + spec_.out_name}, false));
    in_.push_back(std::move(in));
    out_.push_back(std::move(out));
  }
  for (const Linear& in : in_) in_matrices_.push_back(in.matrix());
  for (const Linear& out : out_) out_matrices_.push_back(out.matrix());
  return absl::OkStatus();
}

absl::Status MoeMixer::Load(const std::string& prefix, WeightReader& weights) {
  ANABRANCH_ASSIGN_OR_RETURN(router_, weights.ReadLinear({prefix + spec_.router_name}, false));
  if (spec_.choice_bias) {
    ANABRANCH_ASSIGN_OR_RETURN(choice_bias_, weights.ReadFloats(ChoiceBias(spec_, prefix)));
  }
  if (spec_.latent != 0) {
    ANABRANCH_ASSIGN_OR_RETURN(latent_in_, weights.ReadLinear({prefix + kLatentIn}, false));
    ANABRANCH_ASSIGN_OR_RETURN(latent_out_, weights.ReadLinear({prefix + kLatentOut}, false));
  }
  return LoadExperts(prefix, weights);
}

absl::Status MoeMixer::Route(const StepContext& step, ConstActs x, int32_t* expert,
                             float* weight) const {
  const int64_t rows = step.rows.num_rows();
  ANABRANCH_ASSIGN_OR_RETURN(float* logits, step.workspace->TakeFloats(rows * spec_.experts));
  ANABRANCH_ASSIGN_OR_RETURN(float* scores, step.workspace->TakeFloats(rows * spec_.experts));
  kernels::GemmParams gemm;
  gemm.m = rows;
  gemm.x = x;
  gemm.x_stride = router_.in_features();
  gemm.w = router_.matrix();
  gemm.y = logits;
  gemm.y_stride = spec_.experts;
  ANABRANCH_RETURN_IF_ERROR(step.kernels->gemm(gemm, step.launch));
  kernels::RouteParams params;
  params.kind = spec_.router;
  params.rows = rows;
  params.experts = spec_.experts;
  params.chosen = spec_.chosen;
  params.logits = logits;
  params.scores = scores;
  params.bias = choice_bias_.floats();
  params.groups = spec_.groups;
  params.top_groups = spec_.top_groups;
  params.normalize = spec_.normalize;
  params.scale = spec_.scale;
  params.expert = expert;
  params.weight = weight;
  return step.kernels->route(params, step.launch);
}

absl::Status MoeMixer::RunExperts(const StepContext& step, ConstActs x, const int32_t* expert,
                                  const float* weight, Acts y) const {
  kernels::ExpertsParams params;
  params.rows = step.rows.num_rows();
  params.width = out_.front().out_features();
  params.expert_width = spec_.width;
  params.experts = spec_.experts;
  params.chosen = spec_.chosen;
  params.gated = spec_.gated;
  params.activation = spec_.activation;
  params.x = x;
  params.expert = expert;
  params.weight = weight;
  params.up = in_matrices_.data();
  params.down = out_matrices_.data();
  const int64_t choices = params.rows * params.chosen;
  ANABRANCH_ASSIGN_OR_RETURN(params.gathered, step.workspace->Take(choices * params.width));
  ANABRANCH_ASSIGN_OR_RETURN(params.inside,
                             step.workspace->Take(choices * spec_.width * (spec_.gated ? 2 : 1)));
  ANABRANCH_ASSIGN_OR_RETURN(params.slot, step.workspace->TakeInts(choices));
  ANABRANCH_ASSIGN_OR_RETURN(params.end, step.workspace->TakeInts(spec_.experts + 1));
  params.y = y;
  return step.kernels->experts(params, step.launch);
}

absl::Status MoeMixer::Run(const StepContext& step, const MixerInput& input, Acts y,
                           bool add) const {
  const ConstActs x = input.x;
  const int64_t rows = step.rows.num_rows(), hidden = router_.in_features();
  ANABRANCH_ASSIGN_OR_RETURN(int32_t * expert, step.workspace->TakeInts(rows * spec_.chosen));
  ANABRANCH_ASSIGN_OR_RETURN(float* weight, step.workspace->TakeFloats(rows * spec_.chosen));
  ANABRANCH_RETURN_IF_ERROR(Route(step, x, expert, weight));
  if (spec_.latent == 0) return RunExperts(step, x, expert, weight, y);
  ANABRANCH_ASSIGN_OR_RETURN(Acts in, step.workspace->Take(rows * spec_.latent));
  ANABRANCH_ASSIGN_OR_RETURN(Acts out, step.workspace->Take(rows * spec_.latent));
  ANABRANCH_RETURN_IF_ERROR(latent_in_.Run(rows, x, hidden, in, spec_.latent, step));
  ANABRANCH_RETURN_IF_ERROR(RunExperts(step, in, expert, weight, out));
  return latent_out_.Run(rows, out, spec_.latent, y, hidden, step, add);
}

}  // namespace

void ListTensors(const MoeSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out) {
  const int64_t experts = spec.experts, width = spec.latent == 0 ? hidden : spec.latent;
  const int64_t inside = spec.gated ? 2 * spec.width : spec.width;
  out.push_back({prefix + spec.router_name + ".weight", {experts, hidden}});
  if (spec.choice_bias) out.push_back({ChoiceBias(spec, prefix), {experts}});
  if (spec.latent != 0) {
    out.push_back({prefix + kLatentIn + ".weight", {width, hidden}});
    out.push_back({prefix + kLatentOut + ".weight", {hidden, width}});
  }
  if (spec.stacked) {
    out.push_back({prefix + spec.stacked_in, {experts, inside, width}});
    out.push_back({prefix + spec.stacked_out, {experts, width, spec.width}});
    return;
  }
  for (int64_t e = 0; e < experts; ++e) {
    for (const std::string& name : spec.in_names) {
      out.push_back({ExpertPrefix(prefix, e) + name + ".weight", {spec.width, width}});
    }
    out.push_back({ExpertPrefix(prefix, e) + spec.out_name + ".weight", {width, spec.width}});
  }
}

MixerOr MakeMixer(const MoeSpec& spec, const std::string& prefix, WeightReader& weights) {
  auto mixer = std::make_unique<MoeMixer>(spec);
  ANABRANCH_RETURN_IF_ERROR(mixer->Load(prefix, weights));
  return mixer;
}

}  // namespace anabranch
