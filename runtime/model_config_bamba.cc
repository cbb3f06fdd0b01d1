// bamba: each layer is a Mamba-2 or an attention mixer, then a gated MLP. Attention rotates a part
// of each head only.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {
namespace {

AttentionSpec ReadBambaAttention(ConfigReader& config, int64_t hidden) {
  AttentionSpec mixer = ReadAttention(config, {hidden});
  ReadRope(config, 0.5, mixer);
  if (config.Has("attn_rotary_emb")) {  // how files on the hub say it, in channels
    mixer.rotary_dim =
        static_cast<int32_t>(config.Integer("attn_rotary_emb", std::nullopt, 2, mixer.head_dim));
    if (mixer.rotary_dim % 2 != 0) config.Fail("attn_rotary_emb", "expected an even number");
  }
  return mixer;
}

}  // namespace

void DescribeBamba(ConfigReader& config, ModelDescription& model) {
  const int64_t layers = config.Integer("num_hidden_layers", 32, 1, kMaxLayers);
  model.norm_eps = ReadEps(config, "rms_norm_eps", 1e-5);
  const int64_t inner = config.Integer("mamba_expand", 2, 1, kMaxExpand) * model.hidden;
  Mamba2Spec mamba = ReadMamba2(config, {}, inner, "mamba_expand * hidden_size");
  mamba.norm_eps = model.norm_eps;
  const AttentionSpec attention = ReadBambaAttention(config, model.hidden);
  bool found = false;
  const std::vector<int64_t> attends = config.Indices("attn_layer_indices", layers, &found);
  GatedMlpSpec mlp;
  mlp.width = config.Integer("intermediate_size", 14336, 1, kMaxHidden);
  mlp.bias = config.Bool("mlp_bias", false);

  model.embedding_name = "model.embed_tokens.weight";
  model.final_norm_name = "model.final_layernorm.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", false);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    Branch mixer{prefix + "mamba.", mamba};
    if (std::binary_search(attends.begin(), attends.end(), i)) {
      mixer = {prefix + "self_attn.", attention};
    }
    model.layers.push_back(
        {{{prefix + "input_layernorm.weight", {std::move(mixer)}},
          {prefix + "pre_ff_layernorm.weight", {{prefix + "feed_forward.", mlp}}}}});
  }
}

}  // namespace anabranch
