// falcon_h1: every layer runs a Mamba-2 mixer and attention side by side on the same normed input,
// then a gated MLP. Nearly every part has a factor of its own.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {
namespace {

Mamba2Spec ReadFalconMamba2(ConfigReader& config, int64_t hidden) {
  int64_t inner = config.Integer("mamba_expand", 2, 1, kMaxExpand) * hidden;
  absl::string_view inner_name = "mamba_expand * hidden_size";
  if (config.Has("mamba_d_ssm")) {
    inner = config.Integer("mamba_d_ssm", std::nullopt, 1, kMaxHidden * kMaxExpand);
    inner_name = "mamba_d_ssm";
  }
  Mamba2Keys keys;
  keys.out_bias = "projectors_bias";
  Mamba2Spec mixer = ReadMamba2(config, keys, inner, inner_name);
  mixer.gate = kernels::GateOrder::kGateOnly;
  if (config.Bool("mamba_rms_norm", false)) {
    mixer.gate = config.Bool("mamba_norm_before_gate", true) ? kernels::GateOrder::kNormFirst
                                                             : kernels::GateOrder::kGateFirst;
  }
  mixer.norm_groups = static_cast<int32_t>(mixer.groups);
  const std::vector<float> scale = ReadMultipliers(config, "ssm_multipliers", 5);
  std::copy(scale.begin(), scale.end(), mixer.section_scale.begin());
  return mixer;
}

}  // namespace

void DescribeFalconH1(ConfigReader& config, ModelDescription& model) {
  const int64_t layers = config.Integer("num_hidden_layers", 32, 1, kMaxLayers);
  model.norm_eps = ReadEps(config, "rms_norm_eps", 1e-5);
  model.embedding_scale = ReadMultiplier(config, "embedding_multiplier");
  model.logits_scale = ReadMultiplier(config, "lm_head_multiplier");

  Branch ssm{"mamba.",
             {},
             ReadMultiplier(config, "ssm_in_multiplier"),
             ReadMultiplier(config, "ssm_out_multiplier")};
  Mamba2Spec mamba = ReadFalconMamba2(config, model.hidden);
  mamba.norm_eps = model.norm_eps;
  ssm.mixer = mamba;
  Branch attend{"self_attn.",
                {},
                ReadMultiplier(config, "attention_in_multiplier"),
                ReadMultiplier(config, "attention_out_multiplier")};
  AttentionSpec attention = ReadAttention(config, {model.hidden});
  attention.key_scale = ReadMultiplier(config, "key_multiplier");
  ReadRope(config, 1, attention);
  attend.mixer = attention;
  const std::vector<float> mlp_scale = ReadMultipliers(config, "mlp_multipliers", 2);
  GatedMlpSpec mlp;
  mlp.width = config.Integer("intermediate_size", 14336, 1, kMaxHidden);
  mlp.bias = config.Bool("mlp_bias", false);
  mlp.gate_scale = mlp_scale[0];
  Branch feed_forward{"feed_forward.", mlp, 1, mlp_scale[1]};

  model.embedding_name = "model.embed_tokens.weight";
  model.final_norm_name = "model.final_layernorm.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", false);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const auto under = [&](Branch branch) {
      branch.prefix = prefix + branch.prefix;
      return branch;
    };
    model.layers.push_back({{{prefix + "input_layernorm.weight", {under(ssm), under(attend)}},
                             {prefix + "pre_ff_layernorm.weight", {under(feed_forward)}}}});
  }
}

}  // namespace anabranch
