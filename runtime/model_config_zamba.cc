// zamba and zamba2: every layer is a Mamba mixer. Before some of them (the hybrid layers) a
// transformer block that several layers share reads the residual beside the token's embedding; what
// it gives enters that mixer only, through a linear layer of each hybrid layer's own. zamba has one
// block and Mamba-1 with heads. zamba2 has several blocks in turn, Mamba-2, and low-rank adapters
// by which each use of a block differs.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {
namespace {

// mamba, mamba, hybrid; after them hybrid where the rest's index is `offset` modulo `period`.
std::vector<int64_t> ZambaHybridLayers(ConfigReader& config, int64_t layers) {
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

// Two spellings; without either those of the 2.7B model, for which they are the default.
std::vector<int64_t> Zamba2HybridLayers(ConfigReader& config, int64_t layers) {
  bool found = false;
  const std::vector<std::string> types = config.Strings("layers_block_type", &found);
  std::vector<int64_t> hybrid;
  if (!found) {
    std::vector<int64_t> ids = config.Indices("hybrid_layer_ids", layers, &found);
    if (found) return ids;
    for (int64_t i : {6, 12, 18, 24, 30, 36, 42, 47, 51}) {
      if (i < layers) hybrid.push_back(i);
    }
    return hybrid;
  }
  if (static_cast<int64_t>(types.size()) != layers) {
    config.Fail("layers_block_type",
                absl::StrCat(types.size(), " entries for ", layers, " layers"));
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == "hybrid") {
      hybrid.push_back(static_cast<int64_t>(i));
    } else if (types[i] != "mamba" && types[i] != "linear_attention") {
      config.Fail("layers_block_type",
                  absl::StrCat("'", types[i], "' is not supported; supported: ",
                               "mamba, linear_attention, hybrid"));
    }
  }
  return hybrid;
}

Mamba2Spec ReadZamba2Mamba(ConfigReader& config, int64_t hidden) {
  Mamba2Keys keys;
  keys.heads = "n_mamba_heads";
  keys.default_heads = 8;
  keys.head_dim = "mamba_headdim";
  keys.groups = "mamba_ngroups";
  keys.default_state_dim = 64;
  keys.conv_bias = "";  // always there
  keys.in_bias = keys.out_bias = "add_bias_linear";
  const int64_t inner = config.Integer("mamba_expand", 2, 1, kMaxExpand) * hidden;
  Mamba2Spec mixer = ReadMamba2(config, keys, inner, "mamba_expand * hidden_size");
  mixer.norm_groups = static_cast<int32_t>(mixer.groups);
  mixer.norm_eps = 1e-5f;  // whatever rms_norm_eps is
  return mixer;
}

AttentionSpec ReadZamba2Attention(ConfigReader& config, int64_t hidden, int64_t adapter_rank) {
  AttentionSpec mixer = ReadSharedAttention(config, hidden, 32);
  if (config.Bool("use_mem_rope", false)) {
    ReadRope(config, 1, mixer);
    const auto width = static_cast<double>(mixer.head_dim);
    if (config.Bool("use_long_context", false))
      mixer.rope_theta *= std::pow(8, width / (width - 2));
  }
  if (config.Bool("use_shared_attention_adapter", false)) mixer.adapter.rank = adapter_rank;
  return mixer;
}

struct Wiring {
  MixerSpec mamba;
  std::vector<int64_t> hybrid;  // ascending
  int64_t blocks = 1;           // the j-th hybrid layer uses block j modulo this
  std::string block_name;
  AttentionSpec attention;  // of the blocks; adapters are counted by j
  GatedMlpSpec mlp;
};

// A block is stored with the first layer that uses it, or with any other of them.
void AddLayers(int64_t layers, const Wiring& wiring, ModelDescription& model) {
  const auto layer_prefix = [](int64_t i) { return absl::StrCat("model.layers.", i, "."); };
  const auto block_prefix = [&](size_t j) {
    return absl::StrCat(layer_prefix(wiring.hybrid[j]), wiring.block_name, ".");
  };
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = layer_prefix(i);
    const auto at = std::find(wiring.hybrid.begin(), wiring.hybrid.end(), i);
    const bool hybrid = at != wiring.hybrid.end();
    const std::string decoder = hybrid ? prefix + "mamba_decoder." : prefix;
    ResidualStep step{decoder + "input_layernorm.weight", {{decoder + "mamba.", wiring.mamba}}};
    if (hybrid) {
      const int64_t j = at - wiring.hybrid.begin();
      const std::string block = block_prefix(j % wiring.blocks);
      AttentionSpec attention = wiring.attention;
      GatedMlpSpec mlp = wiring.mlp;
      attention.adapter.index = mlp.adapter.index = j;
      step.side_chain = {{block + "input_layernorm.weight", block + "self_attn.", attention},
                         {block + "pre_ff_layernorm.weight", block + "feed_forward.", mlp},
                         {"", prefix, LinearSpec{"linear"}}};
      if (j < wiring.blocks) model.aliases.push_back({block, {}});
      model.aliases[j % wiring.blocks].others.push_back(block_prefix(j));
    }
    model.layers.push_back({{std::move(step)}});
  }
}

void NameTensors(ConfigReader& config, ModelDescription& model) {
  model.embedding_name = "model.embed_tokens.weight";
  model.final_norm_name = "model.final_layernorm.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", true);
  model.norm_eps = ReadEps(config, "rms_norm_eps", 1e-5);
}

}  // namespace

void DescribeZamba(ConfigReader& config, ModelDescription& model) {
  const int64_t layers = config.Integer("num_hidden_layers", 76, 3, kMaxLayers);
  Wiring wiring;
  wiring.mamba = ReadMamba1(config, model.hidden);
  wiring.hybrid = ZambaHybridLayers(config, layers);
  wiring.block_name = "shared_transf";
  wiring.attention = ReadSharedAttention(config, model.hidden, 16);
  wiring.mlp.width = config.Integer("intermediate_size", 14848, 1, kMaxHidden);
  wiring.mlp.activation = kernels::Activation::kGelu;
  NameTensors(config, model);
  AddLayers(layers, wiring, model);
}

void DescribeZamba2(ConfigReader& config, ModelDescription& model) {
  const int64_t layers = config.Integer("num_hidden_layers", 54, 1, kMaxLayers);
  const int64_t adapter_rank = config.Integer("adapter_rank", 128, 1, kMaxHidden);
  Wiring wiring;
  wiring.mamba = ReadZamba2Mamba(config, model.hidden);
  wiring.hybrid = Zamba2HybridLayers(config, layers);
  wiring.blocks = config.Integer("num_mem_blocks", 1, 1, kMaxLayers);
  if (wiring.blocks > static_cast<int64_t>(wiring.hybrid.size())) {
    config.Fail("num_mem_blocks", absl::StrCat(wiring.blocks, " shared blocks for ",
                                               wiring.hybrid.size(), " hybrid layers"));
    return;
  }
  wiring.block_name = "shared_transformer";
  wiring.attention = ReadZamba2Attention(config, model.hidden, adapter_rank);
  wiring.mlp.width = config.Integer("intermediate_size", 4 * model.hidden, 1, 4 * kMaxHidden);
  wiring.mlp.bias = config.Bool("add_bias_linear", false);
  wiring.mlp.activation = kernels::Activation::kGelu;
  wiring.mlp.in_names = {"gate_up_proj"};
  wiring.mlp.adapter.rank = adapter_rank;
  NameTensors(config, model);
  AddLayers(layers, wiring, model);
}

}  // namespace anabranch
