// mamba2: every layer is one Mamba-2 mixer. The gated norm works on each of the n_groups parts, as
// the weights were trained; reference code that normalises over all of them agrees for one group.
#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {

void DescribeMamba2(ConfigReader& config, ModelDescription& model) {
  const int64_t layers = config.Integer("num_hidden_layers", 64, 1, kMaxLayers);
  const int64_t expand = config.Integer("expand", 2, 1, kMaxExpand);

  Mamba2Keys keys;
  keys.heads = "num_heads";
  keys.head_dim = "head_dim";
  keys.default_head_dim = 64;
  keys.state_dim = "state_size";
  keys.default_state_dim = 128;
  keys.groups = "n_groups";
  keys.default_groups = 8;
  keys.conv_width = "conv_kernel";
  keys.conv_bias = "use_conv_bias";
  keys.in_bias = keys.out_bias = "use_bias";
  Mamba2Spec mixer = ReadMamba2(config, keys, expand * model.hidden, "expand * hidden_size");
  mixer.norm_groups = static_cast<int32_t>(mixer.groups);

  model.norm_eps = mixer.norm_eps = ReadEps(config, "layer_norm_epsilon", 1e-5);
  model.embedding_name = "backbone.embeddings.weight";
  model.aliases = {{"backbone.embeddings.", {"backbone.embedding."}}};
  model.final_norm_name = "backbone.norm_f.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", false);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("backbone.layers.", i, ".");
    model.layers.push_back({{{prefix + "norm.weight", {{prefix + "mixer.", mixer}}}}});
  }
}

}  // namespace anabranch
