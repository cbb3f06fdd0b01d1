// granitemoehybrid (Granite 4.0): each layer is a Mamba-2 or an attention mixer, then the shared
// gated MLP and, beside it, experts if there are any. Embedding, residual, attention and logits
// have multipliers.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {
namespace {

AttentionSpec ReadGraniteAttention(ConfigReader& config, int64_t hidden) {
  AttentionSpec mixer = ReadAttention(config, {hidden});
  mixer.scale = ReadMultiplier(config, "attention_multiplier");
  const std::string kind = config.String("position_embedding_type", "nope");
  if (kind == "rope") {
    ReadRope(config, 1, mixer);
  } else if (kind != "nope") {
    config.Fail("position_embedding_type",
                absl::StrCat("'", kind, "' is not supported; supported: nope, rope"));
  }
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
  const int64_t layers = config.Integer("num_hidden_layers", 32, 1, kMaxLayers);
  model.norm_eps = ReadEps(config, "rms_norm_eps", 1e-6);
  model.embedding_scale = ReadMultiplier(config, "embedding_multiplier");
  model.residual_scale = ReadMultiplier(config, "residual_multiplier");
  const float divisor = ReadMultiplier(config, "logits_scaling");
  if (divisor == 0) config.Fail("logits_scaling", "is 0; logits are divided by it");
  model.logits_scale = 1 / divisor;

  const int64_t inner = config.Integer("mamba_expand", 2, 1, kMaxExpand) * model.hidden;
  Mamba2Spec mamba = ReadMamba2(config, {}, inner, "mamba_expand * hidden_size");
  mamba.norm_eps = model.norm_eps;
  const std::vector<bool> is_attention = ReadPattern(config, layers);
  const bool hybrid =
      std::find(is_attention.begin(), is_attention.end(), true) != is_attention.end();
  const AttentionSpec attention =
      hybrid ? ReadGraniteAttention(config, model.hidden) : AttentionSpec();
  GatedMlpSpec mlp;
  mlp.in_names = {"input_linear"};
  mlp.out_name = "output_linear";
  mlp.width = config.Integer("shared_intermediate_size", 1024, 1, kMaxHidden);

  MoeSpec moe;
  moe.router = kernels::RouterKind::kTopKThenSoftmax;
  moe.router_name = "router.layer";
  moe.stacked = true;
  moe.stacked_in = "input_linear.weight";
  moe.stacked_out = "output_linear.weight";
  const bool has_experts = config.Integer("num_local_experts", 8, 0, kMaxExperts) > 0;
  if (has_experts) {
    ReadExpertCounts(config, "num_local_experts", 8, 2, moe);
    moe.width = config.Integer("intermediate_size", 11008, 1, kMaxHidden);
  }

  model.embedding_name = "model.embed_tokens.weight";
  model.final_norm_name = "model.norm.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", false);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    Branch mixer{prefix + "mamba.", mamba};
    if (is_attention[i]) mixer = {prefix + "self_attn.", attention};
    ResidualStep feed_forward{prefix + "post_attention_layernorm.weight",
                              {{prefix + "shared_mlp.", mlp}}};
    if (has_experts) feed_forward.branches.push_back({prefix + "block_sparse_moe.", moe});
    model.layers.push_back(
        {{{prefix + "input_layernorm.weight", {std::move(mixer)}}, std::move(feed_forward)}});
  }
}

}  // namespace anabranch
