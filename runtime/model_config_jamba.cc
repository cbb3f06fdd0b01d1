// jamba: each layer is a Mamba-1 or an attention mixer without positions, then one gated MLP or
// several of them as experts. Which it is follows from periods and offsets.
#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {
namespace {

// Layers `offset`, `offset` + `period`, ...
struct Every {
  int64_t period, offset;
  bool operator()(int64_t layer) const { return layer % period == offset; }
};

Every ReadEvery(ConfigReader& config, absl::string_view period_key, int64_t default_period,
                absl::string_view offset_key, int64_t default_offset) {
  Every every{config.Integer(period_key, default_period, 1, kMaxLayers),
              config.Integer(offset_key, default_offset, 0, kMaxLayers)};
  if (every.offset >= every.period) {
    config.Fail(offset_key, absl::StrCat(every.offset, " is not below ", period_key, " = ",
                                         every.period, ", so no layer would be one"));
  }
  return every;
}

Mamba1Spec ReadMamba1(ConfigReader& config, const ModelDescription& model) {
  Mamba1Spec mixer;
  mixer.inner = config.Integer("mamba_expand", 2, 1, kMaxExpand) * model.hidden;
  mixer.state_dim = config.Integer("mamba_d_state", 16, 1, kMaxStateDim);
  mixer.dt_rank = ReadDtRank(config, "mamba_dt_rank", model.hidden);
  mixer.conv_width =
      static_cast<int32_t>(config.Integer("mamba_d_conv", 4, kMinConvWidth, kMaxConvWidth));
  mixer.conv_bias = config.Bool("mamba_conv_bias", true);
  mixer.proj_bias = config.Bool("mamba_proj_bias", false);
  if (config.Bool("mamba_inner_layernorms", true)) {
    mixer.inner_norm = Mamba1Spec::InnerNorm::kWeighted;
  }
  mixer.inner_norm_eps = model.norm_eps;
  return mixer;
}

}  // namespace

void DescribeJamba(ConfigReader& config, ModelDescription& model) {
  const int64_t layers = config.Integer("num_hidden_layers", 32, 1, kMaxLayers);
  model.norm_eps = ReadEps(config, "rms_norm_eps", 1e-6);
  const Every attends = ReadEvery(config, "attn_layer_period", 8, "attn_layer_offset", 4);
  const Every expert = ReadEvery(config, "expert_layer_period", 2, "expert_layer_offset", 1);
  const Mamba1Spec mamba = ReadMamba1(config, model);
  AttentionKeys keys;
  keys.width = model.hidden;
  AttentionSpec attention = ReadAttention(config, keys);
  GatedMlpSpec mlp;
  mlp.width = config.Integer("intermediate_size", 14336, 1, kMaxHidden);
  MoeSpec moe;
  moe.width = mlp.width;
  const bool has_experts = config.Integer("num_experts", 16, 1, kMaxExperts) > 1;
  if (has_experts) ReadExpertCounts(config, "num_experts", 16, 2, moe);

  model.embedding_name = "model.embed_tokens.weight";
  model.final_norm_name = "model.final_layernorm.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", false);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    Branch mixer{prefix + "mamba.", mamba}, feed_forward{prefix + "feed_forward.", mlp};
    if (attends(i)) mixer = {prefix + "self_attn.", attention};
    if (has_experts && expert(i)) feed_forward.mixer = moe;
    model.layers.push_back({{{prefix + "input_layernorm.weight", {std::move(mixer)}},
                             {prefix + "pre_ff_layernorm.weight", {std::move(feed_forward)}}}});
  }
}

}  // namespace anabranch
