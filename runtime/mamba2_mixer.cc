// The Mamba-2 mixer: projection into z | x B C | dt, convolution of x B C, SSD scan, gated norm,
// projection back.
#include "kernels/causal_conv1d.h"
#include "kernels/norm.h"
#include "kernels/ssd_scan.h"
#include "runtime/mixer.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

class Mamba2Mixer : public Mixer {
 public:
  explicit Mamba2Mixer(const Mamba2Spec& spec) : spec_(spec) {}

  absl::Status Load(const std::string& prefix, WeightReader& weights);
  void DeclareState(int32_t layer, StateLayout& layout) override;
  absl::Status Run(const StepContext& step, const MixerInput& in, Acts y, bool add) const override;
  absl::Status Fold(const StepContext& step) const override;
  bool NormsInput() const override { return true; }

 private:
  kernels::CausalConv1dParams ConvolutionOf(const StepContext& step, Acts xbc) const;
  absl::Status Scan(const StepContext& step, ConstActs xbc, ConstActs projected, Acts y) const;
  kernels::GatedRmsNormParams GateOf(const StepContext& step, ConstActs projected, Acts y) const;
  // Sizes, rates, and where the state lies.
  kernels::SsdScanParams ScanOf(const StepContext& step) const;
  kernels::SsdPending PendingOf(const StepContext& step) const;
  int64_t conv_channels() const { return spec_.inner + 2 * spec_.groups * spec_.state_dim; }
  int64_t projected_width() const { return spec_.inner + conv_channels() + spec_.heads; }

  Mamba2Spec spec_;
  kernels::DType dtype_ = kernels::DType::kFloat32, state_dtype_ = kernels::DType::kFloat32;
  Linear in_proj_, out_proj_;
  Buffer conv_weight_, conv_bias_, dt_bias_, skip_, norm_;
  Decay decay_;
  size_t entry_ = 0;  // of the window; the recurrent tensor and T follow
  // Beside the state: x, B and dt of tokens that are pending, the first of them at `pending_`.
  kernels::DType activations_ = kernels::DType::kFloat32;
  int32_t packs_from_ = 0;  // StateEntry
  int32_t room_ = 0;
  size_t pending_ = 0;
};

absl::Status Mamba2Mixer::Load(const std::string& prefix, WeightReader& weights) {
  dtype_ = weights.dtype();
  state_dtype_ = weights.state_dtype();
  ANABRANCH_RETURN_IF_ERROR(CheckStateDType(state_dtype_, spec_.state_dim));
  activations_ = weights.activations();
  room_ = weights.pending_room();
  if (auto* const packs_from = weights.device().kernels().ssd_packs_from; packs_from != nullptr) {
    packs_from_ = packs_from(spec_.head_dim, spec_.state_dim, activations_, state_dtype_,
                             weights.device().launch());
  }
  ANABRANCH_ASSIGN_OR_RETURN(in_proj_, weights.ReadLinear({prefix + "in_proj"}, spec_.in_bias));
  const int64_t shared = spec_.groups * spec_.state_dim;
  const std::array<float, 5>& scale = spec_.section_scale;
  ANABRANCH_RETURN_IF_ERROR(in_proj_.ScaleSections({{spec_.inner, scale[0]},
                                                    {spec_.inner, scale[1]},
                                                    {shared, scale[2]},
                                                    {shared, scale[3]},
                                                    {spec_.heads, scale[4]}},
                                                   weights));
  ANABRANCH_ASSIGN_OR_RETURN(out_proj_, weights.ReadLinear({prefix + "out_proj"}, spec_.out_bias));
  ANABRANCH_ASSIGN_OR_RETURN(conv_weight_, weights.ReadConvolution(prefix + "conv1d.weight"));
  if (spec_.conv_bias) {
    ANABRANCH_ASSIGN_OR_RETURN(conv_bias_, weights.ReadFloats(prefix + "conv1d.bias"));
  }
  ANABRANCH_ASSIGN_OR_RETURN(dt_bias_, weights.ReadFloats(prefix + "dt_bias"));
  ANABRANCH_ASSIGN_OR_RETURN(decay_, ReadDecay(prefix + "A_log", weights));
  ANABRANCH_ASSIGN_OR_RETURN(skip_, weights.ReadFloats(prefix + "D"));
  if (spec_.gate != kernels::GateOrder::kGateOnly) {
    ANABRANCH_ASSIGN_OR_RETURN(norm_, weights.ReadFloats(prefix + "norm.weight"));
  }
  return absl::OkStatus();
}

void Mamba2Mixer::DeclareState(int32_t layer, StateLayout& layout) {
  entry_ = layout.entries.size();
  layout.entries.push_back(WindowEntry(layer, spec_.conv_width, conv_channels(), dtype_));
  layout.entries.push_back(
      RecurrentEntry(layer, state_dtype_, {spec_.heads, spec_.head_dim, spec_.state_dim}));
  layout.entries.back().packs_from = packs_from_;
  layout.entries.push_back(
      {layer, StateKind::kCumulative, StateDType::kFloat64, {spec_.heads}, StateDType::kFloat64});
  layout.entries.back().rates = decay_.host.floats();
  layout.entries.back().num_rates = spec_.heads;
  if (room_ == 0) return;
  layout.pending_room = room_;
  pending_ = layout.pending.size();
  const auto add = [&](kernels::DType dtype, int64_t width) {
    layout.pending.push_back(RecurrentEntry(layer, dtype, {room_, width}));
  };
  add(activations_, spec_.inner);
  add(activations_, spec_.groups * spec_.state_dim);
  add(kernels::DType::kFloat32, spec_.heads);
  layout.pending.push_back(
      RecurrentEntry(layer, kernels::DType::kFloat32, {spec_.heads, kernels::SsdPending::kShares}));
}

kernels::SsdPending Mamba2Mixer::PendingOf(const StepContext& step) const {
  kernels::SsdPending pending;
  if (step.deferring == 0) return pending;
  const std::vector<void*>& base = step.state->pending_base;
  const std::vector<int64_t>& stride = step.state->pending_stride;
  pending.room = room_;
  pending.deferring = step.deferring;
  pending.before = step.pending_before;
  pending.after = step.pending_after;
  pending.x = Acts(base[pending_], activations_);
  pending.b = Acts(base[pending_ + 1], activations_);
  pending.dt = static_cast<float*>(base[pending_ + 2]);
  pending.share = static_cast<float*>(base[pending_ + 3]);
  pending.x_slot_stride = stride[pending_];
  pending.b_slot_stride = stride[pending_ + 1];
  pending.dt_slot_stride = stride[pending_ + 2];
  pending.share_slot_stride = stride[pending_ + 3];
  return pending;
}

kernels::SsdScanParams Mamba2Mixer::ScanOf(const StepContext& step) const {
  kernels::SsdScanParams params;
  params.rows = step.rows;
  params.heads = static_cast<int32_t>(spec_.heads);
  params.head_dim = static_cast<int32_t>(spec_.head_dim);
  params.state_dim = static_cast<int32_t>(spec_.state_dim);
  params.groups = static_cast<int32_t>(spec_.groups);
  params.a = decay_.placed.floats();
  params.state = Acts(step.state->base[entry_ + 1], state_dtype_);
  params.state_slot_stride = step.state->stride[entry_ + 1];
  params.state_scales = spec_.heads * spec_.head_dim * spec_.state_dim;
  params.rounding_seed = static_cast<uint32_t>(entry_);
  params.positions = step.positions;
  params.pending = PendingOf(step);
  return params;
}

absl::Status Mamba2Mixer::Fold(const StepContext& step) const {
  return step.kernels->ssd_fold(ScanOf(step), step.launch);
}

kernels::CausalConv1dParams Mamba2Mixer::ConvolutionOf(const StepContext& step, Acts xbc) const {
  kernels::CausalConv1dParams params;
  params.rows = step.rows;
  params.channels = conv_channels();
  params.width = spec_.conv_width;
  params.weight = conv_weight_.floats();
  params.bias = conv_bias_.floats();
  params.window = static_cast<float*>(step.state->base[entry_]);
  params.window_slot_stride = step.state->stride[entry_];
  params.checkpoints = step.checkpoints;
  params.checkpoint_window = step.Kept<float>(entry_);
  params.checkpoint_window_stride = step.KeptStride(entry_);
  params.out = xbc;
  params.out_stride = conv_channels();
  return params;
}

absl::Status Mamba2Mixer::Scan(const StepContext& step, ConstActs xbc, ConstActs projected,
                               Acts y) const {
  kernels::SsdScanParams params = ScanOf(step);
  params.x = xbc;
  params.b = xbc + spec_.inner;
  params.c = xbc + spec_.inner + spec_.groups * spec_.state_dim;
  params.dt = projected + spec_.inner + conv_channels();
  params.x_stride = params.b_stride = params.c_stride = conv_channels();
  params.dt_stride = projected_width();
  params.d = skip_.floats();
  params.dt_bias = dt_bias_.floats();
  params.dt_lo = spec_.dt_lo;
  params.dt_hi = spec_.dt_hi;
  params.t_sum = static_cast<double*>(step.state->base[entry_ + 2]);
  params.t_slot_stride = step.state->stride[entry_ + 2];
  params.checkpoints = step.checkpoints;
  params.checkpoint_state = Acts(step.Kept<void>(entry_ + 1), state_dtype_);
  params.checkpoint_state_stride = step.KeptStride(entry_ + 1);
  params.checkpoint_t = step.Kept<double>(entry_ + 2);
  params.checkpoint_t_stride = step.KeptStride(entry_ + 2);
  params.y = y;
  params.y_stride = spec_.inner;
  return step.kernels->ssd_scan(params, step.launch);
}

kernels::GatedRmsNormParams Mamba2Mixer::GateOf(const StepContext& step, ConstActs projected,
                                                Acts y) const {
  kernels::GatedRmsNormParams params;
  params.norm.rows = step.rows.num_rows();
  params.norm.width = spec_.inner;
  params.norm.groups = spec_.norm_groups;
  params.norm.x = params.norm.y = y;
  params.norm.x_stride = params.norm.y_stride = spec_.inner;
  params.norm.weight = norm_.floats();
  params.norm.eps = spec_.norm_eps;
  params.z = projected;
  params.z_stride = projected_width();
  params.order = spec_.gate;
  return params;
}

absl::Status Mamba2Mixer::Run(const StepContext& step, const MixerInput& in, Acts y,
                              bool add) const {
  const int64_t rows = step.rows.num_rows();
  const int64_t hidden = out_proj_.out_features();
  ANABRANCH_ASSIGN_OR_RETURN(Acts projected, step.workspace->Take(rows * projected_width()));
  ANABRANCH_ASSIGN_OR_RETURN(Acts xbc, step.workspace->Take(rows * conv_channels()));
  ANABRANCH_ASSIGN_OR_RETURN(Acts scanned, step.workspace->Take(rows * spec_.inner));
  ANABRANCH_RETURN_IF_ERROR(ProjectAndConvolve(step, in, in_proj_, dtype_, projected,
                                               projected_width(), spec_.inner,
                                               ConvolutionOf(step, xbc)));
  ANABRANCH_RETURN_IF_ERROR(Scan(step, xbc, projected, scanned));
  return out_proj_.RunStep(GateOf(step, projected, scanned), nullptr, y, hidden, step, add);
}

}  // namespace

void ListTensors(const Mamba2Spec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out) {
  const int64_t channels = spec.inner + 2 * spec.groups * spec.state_dim;
  const int64_t projected = spec.inner + channels + spec.heads;
  out.push_back({prefix + "in_proj.weight", {projected, hidden}});
  out.push_back({prefix + "conv1d.weight", {channels, 1, spec.conv_width}});
  out.push_back({prefix + "dt_bias", {spec.heads}});
  out.push_back({prefix + "A_log", {spec.heads}});
  out.push_back({prefix + "D", {spec.heads}});
  out.push_back({prefix + "out_proj.weight", {hidden, spec.inner}});
  if (spec.gate != kernels::GateOrder::kGateOnly) {
    out.push_back({prefix + "norm.weight", {spec.inner}});
  }
  if (spec.conv_bias) out.push_back({prefix + "conv1d.bias", {channels}});
  if (spec.in_bias) out.push_back({prefix + "in_proj.bias", {projected}});
  if (spec.out_bias) out.push_back({prefix + "out_proj.bias", {hidden}});
}

MixerOr MakeMixer(const Mamba2Spec& spec, const std::string& prefix, WeightReader& weights) {
  auto mixer = std::make_unique<Mamba2Mixer>(spec);
  ANABRANCH_RETURN_IF_ERROR(mixer->Load(prefix, weights));
  return mixer;
}

}  // namespace anabranch
