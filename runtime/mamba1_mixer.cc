// The Mamba-1 mixer: projection into u | z, convolution of u, projection of the result into
// delta | B | C, projection of delta into dt, selective scan gated by z, projection back. With
// heads, each part of u has its own middle: from the second projection to the scan.
#include "kernels/causal_conv1d.h"
#include "kernels/int8_state.h"
#include "kernels/norm.h"
#include "kernels/selective_scan.h"
#include "runtime/mixer.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr const char* kSectionNorms[] = {"dt_layernorm.weight", "b_layernorm.weight",
                                         "c_layernorm.weight"};

class Mamba1Mixer : public Mixer {
 public:
  explicit Mamba1Mixer(const Mamba1Spec& spec) : spec_(spec) {}

  absl::Status Load(const std::string& prefix, WeightReader& weights);
  void DeclareState(int32_t layer, StateLayout& layout) override;
  absl::Status Run(const StepContext& step, const MixerInput& in, Acts y, bool add) const override;
  bool NormsInput() const override { return true; }

 private:
  kernels::CausalConv1dParams ConvolutionOf(const StepContext& step, Acts u) const;
  absl::Status NormaliseSections(const StepContext& step, Acts sections) const;
  absl::Status Scan(const StepContext& step, int64_t head, ConstActs u, ConstActs projected,
                    ConstActs sections, ConstActs dt, Acts y) const;
  absl::Status LoadHeads(const std::string& prefix, WeightReader& weights);
  int64_t head_channels() const { return spec_.inner / spec_.heads; }
  int64_t sections() const { return spec_.dt_rank + 2 * spec_.state_dim; }

  Mamba1Spec spec_;
  kernels::DType dtype_ = kernels::DType::kFloat32, state_dtype_ = kernels::DType::kFloat32;
  Linear in_proj_, out_proj_;
  std::vector<Linear> x_proj_, dt_proj_;  // by head
  Buffer conv_weight_, conv_bias_, dt_bias_, skip_;
  Buffer section_norms_[3];  // of delta, B and C, if weighted
  Decay decay_;
  size_t entry_ = 0;  // of the window; the recurrent tensor and T follow
};

// The scan adds the bias of dt in float32, just before softplus.
absl::Status Mamba1Mixer::LoadHeads(const std::string& prefix, WeightReader& weights) {
  if (spec_.layout == Mamba1Spec::Layout::kHeads) {
    ANABRANCH_ASSIGN_OR_RETURN(in_proj_,
                               weights.ReadAlternating(prefix + "in_proj", spec_.proj_bias));
    ANABRANCH_ASSIGN_OR_RETURN(x_proj_, weights.ReadLinears(prefix + "x_proj_weight"));
    ANABRANCH_ASSIGN_OR_RETURN(dt_proj_, weights.ReadLinears(prefix + "dt_proj_weight"));
    ANABRANCH_ASSIGN_OR_RETURN(dt_bias_, weights.ReadFloats(prefix + "dt_proj_bias"));
    return absl::OkStatus();
  }
  ANABRANCH_ASSIGN_OR_RETURN(in_proj_, weights.ReadLinear({prefix + "in_proj"}, spec_.proj_bias));
  ANABRANCH_ASSIGN_OR_RETURN(Linear x_proj, weights.ReadLinear({prefix + "x_proj"}, false));
  ANABRANCH_ASSIGN_OR_RETURN(Linear dt_proj, weights.ReadLinear({prefix + "dt_proj"}, false));
  x_proj_.push_back(std::move(x_proj));
  dt_proj_.push_back(std::move(dt_proj));
  ANABRANCH_ASSIGN_OR_RETURN(dt_bias_, weights.ReadFloats(prefix + "dt_proj.bias"));
  return absl::OkStatus();
}

absl::Status Mamba1Mixer::Load(const std::string& prefix, WeightReader& weights) {
  dtype_ = weights.dtype();
  state_dtype_ = weights.state_dtype();
  ANABRANCH_RETURN_IF_ERROR(CheckStateDType(state_dtype_, spec_.state_dim));
  ANABRANCH_RETURN_IF_ERROR(LoadHeads(prefix, weights));
  ANABRANCH_ASSIGN_OR_RETURN(out_proj_, weights.ReadLinear({prefix + "out_proj"}, spec_.proj_bias));
  ANABRANCH_ASSIGN_OR_RETURN(conv_weight_, weights.ReadConvolution(prefix + "conv1d.weight"));
  if (spec_.conv_bias) {
    ANABRANCH_ASSIGN_OR_RETURN(conv_bias_, weights.ReadFloats(prefix + "conv1d.bias"));
  }
  ANABRANCH_ASSIGN_OR_RETURN(decay_, ReadDecay(prefix + "A_log", weights));
  ANABRANCH_ASSIGN_OR_RETURN(skip_, weights.ReadFloats(prefix + "D"));
  if (spec_.inner_norm == Mamba1Spec::InnerNorm::kWeighted) {
    for (int i = 0; i < 3; ++i) {
      ANABRANCH_ASSIGN_OR_RETURN(section_norms_[i], weights.ReadFloats(prefix + kSectionNorms[i]));
    }
  }
  return absl::OkStatus();
}

void Mamba1Mixer::DeclareState(int32_t layer, StateLayout& layout) {
  entry_ = layout.entries.size();
  layout.entries.push_back(WindowEntry(layer, spec_.conv_width, spec_.inner, dtype_));
  layout.entries.push_back(RecurrentEntry(layer, state_dtype_, {spec_.inner, spec_.state_dim}));
  layout.entries.push_back(
      {layer, StateKind::kCumulative, StateDType::kFloat64, {spec_.inner}, StateDType::kFloat64});
  layout.entries.back().rates = decay_.host.floats();
  layout.entries.back().num_rates = spec_.inner * spec_.state_dim;
}

kernels::CausalConv1dParams Mamba1Mixer::ConvolutionOf(const StepContext& step, Acts u) const {
  kernels::CausalConv1dParams params;
  params.rows = step.rows;
  params.channels = spec_.inner;
  params.width = spec_.conv_width;
  params.weight = conv_weight_.floats();
  params.bias = conv_bias_.floats();
  params.window = static_cast<float*>(step.state->base[entry_]);
  params.window_slot_stride = step.state->stride[entry_];
  params.checkpoints = step.checkpoints;
  params.checkpoint_window = step.Kept<float>(entry_);
  params.checkpoint_window_stride = step.KeptStride(entry_);
  params.out = u;
  params.out_stride = spec_.inner;
  return params;
}

absl::Status Mamba1Mixer::NormaliseSections(const StepContext& step, Acts values) const {
  if (spec_.inner_norm == Mamba1Spec::InnerNorm::kNone) return absl::OkStatus();
  int64_t offset = 0;
  for (int i = 0; i < 3; ++i) {
    const int64_t width = i == 0 ? spec_.dt_rank : spec_.state_dim;
    kernels::RmsNormParams params;
    params.rows = step.rows.num_rows();
    params.width = width;
    params.x = params.y = values + offset;
    params.x_stride = params.y_stride = sections();
    params.weight = section_norms_[i].floats();
    params.eps = spec_.inner_norm_eps;
    ANABRANCH_RETURN_IF_ERROR(step.kernels->rms_norm(params, step.launch));
    offset += width;
  }
  return absl::OkStatus();
}

absl::Status Mamba1Mixer::Scan(const StepContext& step, int64_t head, ConstActs u,
                               ConstActs projected, ConstActs values, ConstActs dt, Acts y) const {
  const int64_t first = head * head_channels();  // channel
  kernels::SelectiveScanParams params;
  params.rows = step.rows;
  params.channels = head_channels();
  params.state_dim = static_cast<int32_t>(spec_.state_dim);
  params.u = u + first;
  params.dt = dt;
  params.b = values + spec_.dt_rank;
  params.c = values + spec_.dt_rank + spec_.state_dim;
  params.z = projected + spec_.inner + first;
  params.u_stride = params.y_stride = spec_.inner;
  params.dt_stride = params.channels;
  params.b_stride = params.c_stride = sections();
  params.z_stride = 2 * spec_.inner;
  params.a = decay_.placed.floats() + first * spec_.state_dim;
  params.d = skip_.floats() + first;
  params.dt_bias = dt_bias_.floats() + first;
  params.state = Acts(step.state->base[entry_ + 1], state_dtype_) + first * spec_.state_dim;
  // From the first code of this head's channels to their first scale.
  params.state_scales = (spec_.inner - first) * spec_.state_dim +
                        kernels::Int8StateBytes(first * spec_.state_dim) - first * spec_.state_dim;
  params.rounding_seed = static_cast<uint32_t>(entry_);
  params.positions = step.positions;
  params.state_slot_stride = step.state->stride[entry_ + 1];
  params.t_sum = static_cast<double*>(step.state->base[entry_ + 2]) + first;
  params.t_slot_stride = step.state->stride[entry_ + 2];
  params.checkpoints = step.checkpoints;
  if (params.checkpoints.count > 0) {
    params.checkpoint_state =
        Acts(step.Kept<void>(entry_ + 1), state_dtype_) + first * spec_.state_dim;
    params.checkpoint_state_stride = step.KeptStride(entry_ + 1);
    params.checkpoint_t = step.Kept<double>(entry_ + 2) + first;
    params.checkpoint_t_stride = step.KeptStride(entry_ + 2);
  }
  params.y = y + first;
  return step.kernels->selective_scan(params, step.launch);
}

absl::Status Mamba1Mixer::Run(const StepContext& step, const MixerInput& in, Acts y,
                              bool add) const {
  const int64_t rows = step.rows.num_rows();
  const int64_t inner = spec_.inner, channels = head_channels();
  ANABRANCH_ASSIGN_OR_RETURN(Acts projected, step.workspace->Take(rows * 2 * inner));
  ANABRANCH_ASSIGN_OR_RETURN(Acts u, step.workspace->Take(rows * inner));
  ANABRANCH_ASSIGN_OR_RETURN(Acts values, step.workspace->Take(rows * sections()));
  ANABRANCH_ASSIGN_OR_RETURN(Acts dt, step.workspace->Take(rows * channels));
  ANABRANCH_ASSIGN_OR_RETURN(Acts scanned, step.workspace->Take(rows * inner));
  const int64_t hidden = out_proj_.out_features();
  ANABRANCH_RETURN_IF_ERROR(ProjectAndConvolve(step, in, in_proj_, dtype_, projected, 2 * inner, 0,
                                               ConvolutionOf(step, u)));
  for (int64_t head = 0; head < spec_.heads; ++head) {
    ANABRANCH_RETURN_IF_ERROR(
        x_proj_[head].Run(rows, u + head * channels, inner, values, sections(), step));
    ANABRANCH_RETURN_IF_ERROR(NormaliseSections(step, values));
    ANABRANCH_RETURN_IF_ERROR(dt_proj_[head].Run(rows, values, sections(), dt, channels, step));
    ANABRANCH_RETURN_IF_ERROR(Scan(step, head, u, projected, values, dt, scanned));
  }
  return out_proj_.Run(rows, scanned, inner, y, hidden, step, add);
}

}  // namespace

void ListTensors(const Mamba1Spec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out) {
  const int64_t inner = spec.inner, state = spec.state_dim;
  out.push_back({prefix + "in_proj.weight", {2 * inner, hidden}});
  out.push_back({prefix + "conv1d.weight", {inner, 1, spec.conv_width}});
  const int64_t heads = spec.heads, channels = inner / heads, values = spec.dt_rank + 2 * state;
  if (spec.layout == Mamba1Spec::Layout::kHeads) {
    out.push_back({prefix + "x_proj_weight", {heads, values, channels}});
    out.push_back({prefix + "dt_proj_weight", {heads, channels, spec.dt_rank}});
    out.push_back({prefix + "dt_proj_bias", {heads, channels}});
    out.push_back({prefix + "A_log", {heads, channels, state}});
    out.push_back({prefix + "D", {heads, channels}});
  } else {
    out.push_back({prefix + "x_proj.weight", {values, inner}});
    out.push_back({prefix + "dt_proj.weight", {inner, spec.dt_rank}});
    out.push_back({prefix + "dt_proj.bias", {inner}});
    out.push_back({prefix + "A_log", {inner, state}});
    out.push_back({prefix + "D", {inner}});
  }
  out.push_back({prefix + "out_proj.weight", {hidden, inner}});
  if (spec.conv_bias) out.push_back({prefix + "conv1d.bias", {inner}});
  if (spec.inner_norm == Mamba1Spec::InnerNorm::kWeighted) {
    for (int i = 0; i < 3; ++i) {
      out.push_back({prefix + kSectionNorms[i], {i == 0 ? spec.dt_rank : state}});
    }
  }
  if (spec.proj_bias) {
    out.push_back({prefix + "in_proj.bias", {2 * inner}});
    out.push_back({prefix + "out_proj.bias", {hidden}});
  }
}

MixerOr MakeMixer(const Mamba1Spec& spec, const std::string& prefix, WeightReader& weights) {
  auto mixer = std::make_unique<Mamba1Mixer>(spec);
  ANABRANCH_RETURN_IF_ERROR(mixer->Load(prefix, weights));
  return mixer;
}

}  // namespace anabranch
