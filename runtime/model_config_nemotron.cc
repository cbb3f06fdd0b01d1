// nemotron_h: each layer is one mixer, Mamba-2, attention without positions, an MLP or experts
// beside a shared one. Older files spell several keys differently.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {
namespace {

// The first of the keys that is there, or else the first.
absl::string_view Present(const ConfigReader& config, absl::string_view key,
                          absl::string_view older) {
  return config.Has(key) || !config.Has(older) ? key : older;
}

// One character a layer: M, *, - and E. Fails and returns what is understood otherwise.
std::string PatternOf(ConfigReader& config, absl::string_view key,
                      const std::vector<std::string>& types) {
  std::string pattern;
  for (const std::string& type : types) {
    if (type == "mamba" || type == "linear_attention") {
      pattern += 'M';
    } else if (type == "attention" || type == "full_attention") {
      pattern += '*';
    } else if (type == "mlp" || type == "moe") {
      pattern += type == "mlp" ? '-' : 'E';
    } else {
      config.Fail(key, absl::StrCat("'", type, "' is not supported; supported: mamba, ",
                                    "linear_attention, attention, full_attention, mlp, moe"));
    }
  }
  return pattern;
}

std::string ReadPattern(ConfigReader& config) {
  absl::string_view key = "hybrid_override_pattern";
  std::string pattern;
  if (config.Has(key)) {
    pattern = config.String(key, "");
    const size_t bad = pattern.find_first_not_of("M*-E");
    if (bad != std::string::npos) {
      config.Fail(key, absl::StrCat("'", pattern.substr(bad, 1), "' at ", bad,
                                    " is not supported; supported: M, *, - and E"));
    }
  } else {
    key = Present(config, "layers_block_type", "layer_types");
    bool found = false;
    pattern = PatternOf(config, key, config.Strings(key, &found));
    if (!found) config.Fail(key, "is missing, and so is hybrid_override_pattern");
  }
  const auto count = static_cast<int64_t>(pattern.size());
  if (count < 1 || count > kMaxLayers) {
    config.Fail(key, absl::StrCat("has ", count, " layers; expected 1 to ", kMaxLayers));
  } else if (config.Integer("num_hidden_layers", count, 1, kMaxLayers) != count) {
    config.Fail("num_hidden_layers", absl::StrCat("is not the ", count, " layers of ", key));
  }
  return pattern;
}

Mamba2Spec ReadMamba(ConfigReader& config, const ModelDescription& model) {
  Mamba2Keys keys;
  keys.heads = "mamba_num_heads";
  keys.head_dim = "mamba_head_dim";
  keys.default_head_dim = 64;
  keys.state_dim = "ssm_state_size";
  keys.default_state_dim = 128;
  keys.groups = Present(config, "n_groups", "mamba_n_groups");
  keys.default_groups = 8;
  keys.conv_width = Present(config, "conv_kernel", "mamba_d_conv");
  keys.conv_bias = Present(config, "use_conv_bias", "mamba_conv_bias");
  keys.in_bias = keys.out_bias = "use_bias";
  keys.dt_limit = Present(config, "time_step_limit", "mamba_dt_limit");
  CheckActivation(config, "mamba_hidden_act", "silu");
  Mamba2Spec mixer = ReadMamba2(config, keys, std::nullopt, "");
  mixer.norm_groups = static_cast<int32_t>(mixer.groups);
  mixer.norm_eps = model.norm_eps;
  return mixer;
}

AttentionSpec ReadNemotronAttention(ConfigReader& config, const ModelDescription& model) {
  AttentionKeys keys;
  keys.width = model.hidden;
  keys.head_dim = Present(config, "head_dim", "attention_head_dim");
  keys.default_head_dim = 128;
  return ReadAttention(config, keys);
}

// Groups of experts, of which some take part: a part is judged by its two best.
void ReadGroups(ConfigReader& config, MoeSpec& moe) {
  moe.groups = static_cast<int32_t>(config.Integer("n_group", 1, 1, kMaxExperts));
  moe.top_groups = static_cast<int32_t>(config.Integer("topk_group", 1, 1, kMaxExperts));
  if (moe.top_groups > moe.groups) {
    config.Fail("topk_group", absl::StrCat(moe.top_groups, " is more than n_group = ", moe.groups));
  }
  if (moe.experts % moe.groups != 0 || (moe.groups > 1 && moe.experts / moe.groups < 2)) {
    config.Fail("n_group", absl::StrCat("n_routed_experts = ", moe.experts, " do not make ",
                                        moe.groups, " equal groups of at least 2"));
  } else if (moe.chosen > moe.experts / moe.groups * moe.top_groups) {
    config.Fail("num_experts_per_tok",
                absl::StrCat(moe.chosen, " is more than topk_group groups have"));
  }
}

MoeSpec ReadExperts(ConfigReader& config) {
  MoeSpec moe;
  ReadExpertCounts(config, "n_routed_experts", 8, 2, moe);
  ReadGroups(config, moe);
  moe.width = config.Integer("moe_intermediate_size", 7688, 1, kMaxHidden);
  if (config.Has("moe_latent_size")) {
    moe.latent = config.Integer("moe_latent_size", std::nullopt, 1, kMaxHidden);
  }
  const std::string scoring = config.String("scoring_func", "sigmoid");
  if (scoring != "sigmoid") {
    config.Fail("scoring_func",
                absl::StrCat("'", scoring, "' is not supported; supported: ", "sigmoid"));
  }
  moe.router = kernels::RouterKind::kSigmoid;
  moe.choice_bias = true;
  moe.normalize = config.Bool("norm_topk_prob", true);
  moe.scale = ReadMultiplier(config, "routed_scaling_factor");
  moe.gated = false;
  moe.activation = kernels::Activation::kRelu2;
  moe.router_name = "gate";
  moe.in_names = {"up_proj"};
  moe.stacked_in = "experts.up_proj";
  return moe;
}

}  // namespace

void DescribeNemotronH(ConfigReader& config, ModelDescription& model) {
  const std::string pattern = ReadPattern(config);
  const auto has = [&](char kind) { return pattern.find(kind) != std::string::npos; };
  model.norm_eps = ReadEps(config, "layer_norm_epsilon", 1e-5);
  CheckActivation(config, "mlp_hidden_act", "relu2");
  const Mamba2Spec mamba = has('M') ? ReadMamba(config, model) : Mamba2Spec();
  const AttentionSpec attention = has('*') ? ReadNemotronAttention(config, model) : AttentionSpec();
  MlpSpec mlp;
  mlp.bias = config.Bool("mlp_bias", false);
  MlpSpec shared = mlp;
  if (has('-')) mlp.width = config.Integer("intermediate_size", 21504, 1, kMaxHidden);
  MoeSpec moe;
  bool has_shared = false;
  if (has('E')) {
    moe = ReadExperts(config);
    if (mlp.bias) config.Fail("mlp_bias", "true is not supported with experts; supported: false");
    has_shared = config.Integer("n_shared_experts", 1, 0, 1) == 1;
    shared.width = config.Integer("moe_shared_expert_intermediate_size", 7688, 1, kMaxHidden);
  }

  model.embedding_name = "backbone.embeddings.weight";
  model.aliases = {{"backbone.embeddings.", {"backbone.embedding."}}, {"backbone.", {"model."}}};
  model.final_norm_name = "backbone.norm_f.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", false);
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string prefix = absl::StrCat("backbone.layers.", i, ".");
    ResidualStep step{prefix + "norm.weight", {{prefix + "mixer.", mamba}}};
    MixerSpec& mixer = step.branches.front().mixer;
    if (pattern[i] == '*') mixer = attention;
    if (pattern[i] == '-') mixer = mlp;
    if (pattern[i] == 'E') mixer = moe;
    if (pattern[i] == 'E' && has_shared) {
      step.branches.push_back({prefix + "mixer.shared_experts.", shared});
    }
    model.layers.push_back({{std::move(step)}});
  }
}

}  // namespace anabranch
