// zamba: every layer is a Mamba-1 mixer with heads. Before some of them (the hybrid layers) one
// transformer block, stored once, reads the residual beside the token's embedding; what it gives
// enters that mixer only, through a linear layer of each hybrid layer's own.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {
namespace {

// mamba, mamba, hybrid; after them hybrid where the rest's index is `offset` modulo `period`.
std::vector<int64_t> HybridLayers(ConfigReader& config, int64_t layers) {
  const int64_t period = config.Integer("attn_layer_period", 6, 1, kMaxLayers);
  const int64_t offset = config.Integer("attn_layer_offset", 4, 0, kMaxLayers);
  std::vector<int64_t> hybrid = {2};
  for (int64_t i = 3; i < layers; ++i) {
    if ((i - 3) % period == offset) hybrid.push_back(i);
  }
  return hybrid;
}

Mamba1Spec ReadMamba1(ConfigReader& config, int64_t hidden) {
  Mamba1Spec mixer;
  mixer.layout = Mamba1Spec::Layout::kHeads;
  mixer.inner = config.Integer("mamba_expand", 2, 1, kMaxExpand) * hidden;
  mixer.heads = config.Integer("n_mamba_heads", 2, 1, kMaxHeads);
  if (mixer.inner % mixer.heads != 0) {
    config.Fail("n_mamba_heads", absl::StrCat(mixer.heads, " does not divide mamba_expand * ",
                                              "hidden_size = ", mixer.inner));
  }
  mixer.state_dim = config.Integer("mamba_d_state", 16, 1, kMaxStateDim);
  mixer.dt_rank = ReadDtRank(config, "mamba_dt_rank", hidden);
  mixer.conv_width =
      static_cast<int32_t>(config.Integer("mamba_d_conv", 4, kMinConvWidth, kMaxConvWidth));
  mixer.conv_bias = config.Bool("mamba_conv_bias", true);
  mixer.proj_bias = config.Bool("mamba_proj_bias", false);
  CheckActivation(config, "hidden_mamba_act", "silu");
  return mixer;
}

// Attention reads [residual, embedding]. Its scale is that of heads of half the size.
AttentionSpec ReadSharedAttention(ConfigReader& config, int64_t hidden, int64_t default_heads) {
  AttentionKeys keys;
  keys.width = 2 * hidden;
  keys.width_name = "2 * hidden_size";
  keys.head_dim = "attention_head_dim";
  keys.default_heads = default_heads;
  AttentionSpec mixer = ReadAttention(config, keys);
  mixer.in_width = keys.width;
  if (config.Integer("attention_hidden_size", keys.width, 1, 2 * kMaxHidden) != keys.width) {
    config.Fail("attention_hidden_size", absl::StrCat("expected 2 * hidden_size = ", keys.width));
  }
  mixer.bias = false;
  mixer.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(mixer.head_dim) / 2));
  return mixer;
}

}  // namespace

void DescribeZamba(ConfigReader& config, ModelDescription& model) {
  constexpr int64_t kFirstHybrid = 2;
  const int64_t layers = config.Integer("num_hidden_layers", 76, kFirstHybrid + 1, kMaxLayers);
  const std::vector<int64_t> hybrid = HybridLayers(config, layers);
  const Mamba1Spec mamba = ReadMamba1(config, model.hidden);
  const AttentionSpec attention = ReadSharedAttention(config, model.hidden, 16);
  GatedMlpSpec mlp;
  mlp.width = config.Integer("intermediate_size", 14848, 1, kMaxHidden);
  mlp.activation = kernels::Activation::kGelu;

  model.norm_eps = ReadEps(config, "rms_norm_eps", 1e-5);
  model.embedding_name = "model.embed_tokens.weight";
  model.final_norm_name = "model.final_layernorm.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", true);
  const auto shared_prefix = [](int64_t layer) {
    return absl::StrCat("model.layers.", layer, ".shared_transf.");
  };
  const std::string shared = shared_prefix(hybrid.front());
  model.aliases.push_back({shared, {}});
  for (int64_t layer : hybrid) model.aliases.back().others.push_back(shared_prefix(layer));
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const bool is_hybrid = std::find(hybrid.begin(), hybrid.end(), i) != hybrid.end();
    const std::string mamba_prefix = is_hybrid ? prefix + "mamba_decoder." : prefix;
    ResidualStep step{mamba_prefix + "input_layernorm.weight", {{mamba_prefix + "mamba.", mamba}}};
    if (is_hybrid) {
      step.side_chain = {{shared + "input_layernorm.weight", shared + "self_attn.", attention},
                         {shared + "pre_ff_layernorm.weight", shared + "feed_forward.", mlp},
                         {"", prefix, LinearSpec{"linear"}}};
    }
    model.layers.push_back({{std::move(step)}});
  }
}

}  // namespace anabranch
