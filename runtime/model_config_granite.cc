// granitemoehybrid without experts (Granite 4.0 H, dense): each layer is a Mamba-2 or an attention
// mixer, then the shared gated MLP. Embedding, residual, attention and logits have multipliers.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {
namespace {

constexpr double kMaxMultiplier = 1e6;

float Multiplier(ConfigReader& config, absl::string_view key) {
  return static_cast<float>(config.Number(key, 1, -kMaxMultiplier, kMaxMultiplier));
}

Mamba2Spec ReadMamba2(ConfigReader& config, const ModelDescription& model) {
  Mamba2Spec mixer;
  mixer.inner = config.Integer("mamba_expand", 2, 1, kMaxExpand) * model.hidden;
  mixer.heads = config.Integer("mamba_n_heads", 128, 1, kMaxHeads);
  mixer.groups = config.Integer("mamba_n_groups", 1, 1, kMaxHeads);
  mixer.state_dim = config.Integer("mamba_d_state", 256, 1, kMaxStateDim);
  if (config.IsString("mamba_d_head") || !config.Has("mamba_d_head")) {
    const std::string width = config.String("mamba_d_head", "auto");
    if (width != "auto") config.Fail("mamba_d_head", "expected an integer or \"auto\"");
    mixer.head_dim = std::max<int64_t>(mixer.inner / mixer.heads, 1);
  } else {
    mixer.head_dim = config.Integer("mamba_d_head", std::nullopt, 1, kMaxHeadDim);
  }
  if (mixer.heads * mixer.head_dim != mixer.inner) {
    config.Fail("mamba_n_heads",
                absl::StrCat(mixer.heads, " heads of ", mixer.head_dim,
                             " do not make mamba_expand * hidden_size = ", mixer.inner));
  }
  if (mixer.heads % mixer.groups != 0) {
    config.Fail("mamba_n_groups", absl::StrCat(mixer.groups, " does not divide mamba_n_heads"));
  }
  mixer.conv_width =
      static_cast<int32_t>(config.Integer("mamba_d_conv", 4, kMinConvWidth, kMaxConvWidth));
  mixer.conv_bias = config.Bool("mamba_conv_bias", true);
  mixer.in_bias = mixer.out_bias = config.Bool("mamba_proj_bias", false);
  std::tie(mixer.dt_lo, mixer.dt_hi) = config.Range("time_step_limit", mixer.dt_lo, mixer.dt_hi);
  mixer.norm_eps = model.norm_eps;
  return mixer;
}

void ReadRope(ConfigReader& config, AttentionSpec& mixer) {
  const std::string kind = config.String("position_embedding_type", "nope");
  if (kind != "nope" && kind != "rope") {
    config.Fail("position_embedding_type",
                absl::StrCat("'", kind, "' is not supported; supported: nope, rope"));
  }
  constexpr double kMaxTheta = 1e15;
  ConfigReader rope = config.Object("rope_parameters");
  mixer.rope_theta =
      rope.Number("rope_theta", config.Number("rope_theta", 10000, 1, kMaxTheta), 1, kMaxTheta);
  const double factor =
      rope.Number("partial_rotary_factor", config.Number("partial_rotary_factor", 1, 0, 1), 0, 1);
  config.Merge(rope);
  if (kind != "rope") return;
  mixer.rotary_dim = static_cast<int32_t>(factor * static_cast<double>(mixer.head_dim));
  if (mixer.rotary_dim % 2 != 0 || mixer.rotary_dim == 0) {
    config.Fail("partial_rotary_factor",
                absl::StrCat("rotates ", mixer.rotary_dim, " channels; expected an even number"));
  }
}

AttentionSpec ReadAttention(ConfigReader& config, const ModelDescription& model) {
  AttentionSpec mixer;
  mixer.heads = config.Integer("num_attention_heads", 32, 1, kMaxHeads);
  mixer.kv_heads = config.Integer("num_key_value_heads", mixer.heads, 1, kMaxHeads);
  mixer.head_dim =
      config.Integer("head_dim", std::max<int64_t>(model.hidden / mixer.heads, 1), 1, kMaxHeadDim);
  if (!config.Has("head_dim") && model.hidden % mixer.heads != 0) {
    config.Fail("num_attention_heads", "does not divide hidden_size, and head_dim is absent");
  }
  if (mixer.heads % mixer.kv_heads != 0) {
    config.Fail("num_key_value_heads", "does not divide num_attention_heads");
  }
  mixer.scale = Multiplier(config, "attention_multiplier");
  mixer.bias = config.Bool("attention_bias", false);
  ReadRope(config, mixer);
  return mixer;
}

// True where layer i is attention. Two keys and two spellings of each kind are in use.
std::vector<bool> ReadPattern(ConfigReader& config, int64_t layers) {
  bool found = false;
  absl::string_view key = "layer_types";
  std::vector<std::string> types = config.Strings(key, &found);
  if (!found) {
    key = "layers_block_type";
    types = config.Strings(key, &found);
  }
  std::vector<bool> attention(layers, false);
  if (!found) return attention;
  if (static_cast<int64_t>(types.size()) != layers) {
    config.Fail(key, absl::StrCat(types.size(), " entries for ", layers, " layers"));
    return attention;
  }
  for (int64_t i = 0; i < layers; ++i) {
    attention[i] = types[i] == "attention" || types[i] == "full_attention";
    if (!attention[i] && types[i] != "mamba" && types[i] != "linear_attention") {
      config.Fail(key, absl::StrCat("'", types[i], "' is not supported; supported: mamba, ",
                                    "linear_attention, attention, full_attention"));
    }
  }
  return attention;
}

}  // namespace

void DescribeGraniteHybrid(ConfigReader& config, ModelDescription& model) {
  const int64_t experts = config.Integer("num_local_experts", 8, 0, kMaxHeads);
  if (experts > 0) {
    config.Fail("num_local_experts", absl::StrCat("models with experts are not supported (found ",
                                                  experts, "); supported: 0, the dense ones"));
    return;
  }
  const int64_t layers = config.Integer("num_hidden_layers", 32, 1, kMaxLayers);
  model.norm_eps = static_cast<float>(config.Number("rms_norm_eps", 1e-6, 0, 1));
  model.embedding_scale = Multiplier(config, "embedding_multiplier");
  model.residual_scale = Multiplier(config, "residual_multiplier");
  const float divisor = Multiplier(config, "logits_scaling");
  if (divisor == 0) config.Fail("logits_scaling", "is 0; logits are divided by it");
  model.logits_scale = 1 / divisor;

  const Mamba2Spec mamba = ReadMamba2(config, model);
  const std::vector<bool> is_attention = ReadPattern(config, layers);
  const bool hybrid =
      std::find(is_attention.begin(), is_attention.end(), true) != is_attention.end();
  const AttentionSpec attention = hybrid ? ReadAttention(config, model) : AttentionSpec();
  GatedMlpSpec mlp;
  mlp.in_names = {"input_linear"};
  mlp.out_name = "output_linear";
  mlp.width = config.Integer("shared_intermediate_size", 1024, 1, kMaxHidden);

  model.embedding_name = "model.embed_tokens.weight";
  model.final_norm_name = "model.norm.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", false);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    Branch mixer{prefix + "mamba.", mamba};
    if (is_attention[i]) mixer = {prefix + "self_attn.", attention};
    model.layers.push_back(
        {{{prefix + "input_layernorm.weight", {std::move(mixer)}},
          {prefix + "post_attention_layernorm.weight", {{prefix + "shared_mlp.", mlp}}}}});
  }
}

}  // namespace anabranch
