// Causal attention over the sequence's pages of keys and values; q, k and v come from one stacked
// projection.
#include "absl/strings/str_cat.h"
#include "kernels/attention.h"
#include "runtime/adapter.h"
#include "runtime/mixer.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

std::string AdapterPrefix(const AttentionSpec& spec, const std::string& prefix, char projection) {
  return absl::StrCat(prefix, "linear_", std::string(1, projection), "_adapter_list.",
                      spec.adapter.index, ".");
}

class AttentionMixer : public Mixer {
 public:
  explicit AttentionMixer(const AttentionSpec& spec) : spec_(spec) {}

  absl::Status Load(const std::string& prefix, WeightReader& weights);
  void DeclareState(int32_t layer, StateLayout& layout) override;
  absl::Status Run(const StepContext& step, const MixerInput& in, Acts y, bool add) const override;
  bool NormsInput() const override { return adapters_.empty(); }  // they read the same rows

 private:
  absl::Status ProjectAll(const StepContext& step, const MixerInput& in, Acts qkv) const;
  absl::Status Rotate(const StepContext& step, Acts qkv) const;
  absl::Status Attend(const StepContext& step, ConstActs qkv, Acts y) const;
  int64_t q_width() const { return spec_.heads * spec_.head_dim; }
  int64_t kv_width() const { return spec_.kv_heads * spec_.head_dim; }
  int64_t qkv_width() const { return q_width() + 2 * kv_width(); }

  AttentionSpec spec_;
  kernels::DType dtype_ = kernels::DType::kFloat32;
  Linear qkv_proj_, out_proj_;
  std::vector<Adapter> adapters_;  // of q, k and v, or none
  size_t entry_ = 0;               // of the keys; the values follow
};

absl::Status AttentionMixer::Load(const std::string& prefix, WeightReader& weights) {
  dtype_ = weights.dtype();
  ANABRANCH_ASSIGN_OR_RETURN(
      qkv_proj_,
      weights.ReadLinear({prefix + "q_proj", prefix + "k_proj", prefix + "v_proj"}, spec_.bias));
  ANABRANCH_RETURN_IF_ERROR(qkv_proj_.ScaleSections(
      {{q_width(), 1}, {kv_width(), spec_.key_scale}, {kv_width(), 1}}, weights));
  ANABRANCH_ASSIGN_OR_RETURN(out_proj_, weights.ReadLinear({prefix + "o_proj"}, spec_.bias));
  if (spec_.adapter.rank == 0) return absl::OkStatus();
  for (char projection : {'q', 'k', 'v'}) {
    ANABRANCH_ASSIGN_OR_RETURN(Adapter adapter,
                               Adapter::Load(AdapterPrefix(spec_, prefix, projection), weights));
    adapters_.push_back(std::move(adapter));
  }
  return absl::OkStatus();
}

void AttentionMixer::DeclareState(int32_t layer, StateLayout& layout) {
  entry_ = layout.entries.size();
  const StateDType stored =
      dtype_ == kernels::DType::kBFloat16 ? StateDType::kBFloat16 : StateDType::kFloat32;
  for (StateKind kind : {StateKind::kKeys, StateKind::kValues}) {
    layout.entries.push_back(
        {layer, kind, stored, {kKvPageTokens, spec_.kv_heads, spec_.head_dim}, stored});
  }
  layout.entries[entry_].rotary_dim = spec_.rotary_dim;
  layout.entries[entry_].rope_theta = spec_.rope_theta;
}

absl::Status AttentionMixer::ProjectAll(const StepContext& step, const MixerInput& in,
                                        Acts qkv) const {
  const int64_t width = qkv_proj_.in_features();
  ANABRANCH_RETURN_IF_ERROR(Project(step, in, qkv_proj_, qkv, qkv_width()));
  for (const Adapter& adapter : adapters_) {
    ANABRANCH_RETURN_IF_ERROR(adapter.Run(step, in.x, width, qkv, qkv_width()));
    qkv = qkv + (&adapter == &adapters_.front() ? q_width() : kv_width());
  }
  return absl::OkStatus();
}

absl::Status AttentionMixer::Rotate(const StepContext& step, Acts qkv) const {
  if (spec_.rotary_dim == 0) return absl::OkStatus();
  kernels::RopeParams params;
  params.rows = step.rows;
  params.position = step.positions;
  params.head_dim = static_cast<int32_t>(spec_.head_dim);
  params.rotary_dim = spec_.rotary_dim;
  params.theta = spec_.rope_theta;
  params.x_stride = qkv_width();
  params.heads = static_cast<int32_t>(spec_.heads);
  params.x = qkv;
  ANABRANCH_RETURN_IF_ERROR(step.kernels->rope(params, step.launch));
  params.heads = static_cast<int32_t>(spec_.kv_heads);
  params.x = qkv + q_width();
  return step.kernels->rope(params, step.launch);
}

absl::Status AttentionMixer::Attend(const StepContext& step, ConstActs qkv, Acts y) const {
  kernels::AttentionParams params;
  params.rows = step.rows;
  params.position = step.positions;
  params.heads = static_cast<int32_t>(spec_.heads);
  params.kv_heads = static_cast<int32_t>(spec_.kv_heads);
  params.head_dim = static_cast<int32_t>(spec_.head_dim);
  params.scale = spec_.scale;
  params.q = qkv;
  params.k = qkv + q_width();
  params.v = qkv + q_width() + kv_width();
  params.q_stride = params.k_stride = params.v_stride = qkv_width();
  params.kv.dtype = dtype_;
  params.kv.keys = step.state->base[entry_];
  params.kv.values = step.state->base[entry_ + 1];
  params.kv.page_stride = step.state->stride[entry_];
  params.kv.page_tokens = kKvPageTokens;
  params.kv.pages = step.pages;
  params.kv.page_start = step.page_start;
  params.y = y;
  params.y_stride = q_width();
  params.max_context = step.max_context;
  if (step.launch.cuda == nullptr) {
    const int64_t scratch = kernels::AttentionScratch(params, step.max_context);
    ANABRANCH_ASSIGN_OR_RETURN(params.scratch, step.workspace->TakeFloats(scratch));
  }
  return step.kernels->attention(params, step.launch);
}

absl::Status AttentionMixer::Run(const StepContext& step, const MixerInput& in, Acts y,
                                 bool add) const {
  const int64_t rows = step.rows.num_rows();
  const int64_t hidden = out_proj_.out_features();
  ANABRANCH_ASSIGN_OR_RETURN(Acts qkv, step.workspace->Take(rows * qkv_width()));
  ANABRANCH_ASSIGN_OR_RETURN(Acts attended, step.workspace->Take(rows * q_width()));
  ANABRANCH_RETURN_IF_ERROR(ProjectAll(step, in, qkv));
  ANABRANCH_RETURN_IF_ERROR(Rotate(step, qkv));
  ANABRANCH_RETURN_IF_ERROR(Attend(step, qkv, attended));
  return out_proj_.Run(rows, attended, q_width(), y, hidden, step, add);
}

}  // namespace

void ListTensors(const AttentionSpec& spec, const std::string& prefix, int64_t hidden,
                 std::vector<ExpectedTensor>& out) {
  const int64_t q_width = spec.heads * spec.head_dim, kv_width = spec.kv_heads * spec.head_dim;
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns) {
    out.push_back({prefix + name + ".weight", {rows, columns}});
    if (spec.bias) out.push_back({prefix + name + ".bias", {rows}});
  };
  const int64_t in_width = spec.in_width == 0 ? hidden : spec.in_width;
  add("q_proj", q_width, in_width);
  add("k_proj", kv_width, in_width);
  add("v_proj", kv_width, in_width);
  add("o_proj", hidden, q_width);
  if (spec.adapter.rank == 0) return;
  for (char projection : {'q', 'k', 'v'}) {
    Adapter::ListTensors(AdapterPrefix(spec, prefix, projection), spec.adapter.rank, in_width,
                         projection == 'q' ? q_width : kv_width, out);
  }
}

MixerOr MakeMixer(const AttentionSpec& spec, const std::string& prefix, WeightReader& weights) {
  auto mixer = std::make_unique<AttentionMixer>(spec);
  ANABRANCH_RETURN_IF_ERROR(mixer->Load(prefix, weights));
  return mixer;
}

}  // namespace anabranch
