// mamba2: every layer is one Mamba-2 mixer. The gated norm works on each of the n_groups parts, as
// the weights were trained; reference code that normalises over all of them agrees for one group.
#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {

void DescribeMamba2(ConfigReader& config, ModelDescription& model) {
  const int64_t layers = config.Integer("num_hidden_layers", 64, 1, kMaxLayers);
  const int64_t expand = config.Integer("expand", 2, 1, kMaxExpand);

  Mamba2Spec mixer;
  mixer.heads = config.Integer("num_heads", 128, 1, kMaxHeads);
  mixer.head_dim = config.Integer("head_dim", 64, 1, kMaxHeadDim);
  mixer.state_dim = config.Integer("state_size", 128, 1, kMaxStateDim);
  mixer.groups = config.Integer("n_groups", 8, 1, kMaxHeads);
  mixer.inner = mixer.heads * mixer.head_dim;
  if (mixer.inner != expand * model.hidden) {
    config.Fail("num_heads",
                absl::StrCat("num_heads * head_dim is ", mixer.inner, ", expand * hidden_size is ",
                             expand * model.hidden, "; they must be equal"));
  }
  if (mixer.heads % mixer.groups != 0) {
    config.Fail("n_groups", absl::StrCat(mixer.groups, " does not divide num_heads"));
  }
  mixer.conv_width =
      static_cast<int32_t>(config.Integer("conv_kernel", 4, kMinConvWidth, kMaxConvWidth));
  mixer.conv_bias = config.Bool("use_conv_bias", true);
  mixer.in_bias = mixer.out_bias = config.Bool("use_bias", false);
  std::tie(mixer.dt_lo, mixer.dt_hi) = config.Range("time_step_limit", mixer.dt_lo, mixer.dt_hi);
  mixer.norm_groups = static_cast<int32_t>(mixer.groups);

  model.norm_eps = static_cast<float>(config.Number("layer_norm_epsilon", 1e-5, 0, 1));
  mixer.norm_eps = model.norm_eps;
  model.residual_in_fp32 = config.Bool("residual_in_fp32", true);
  model.embedding_name = "backbone.embeddings.weight";
  model.embedding_alias = "backbone.embedding.weight";
  model.final_norm_name = "backbone.norm_f.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", false);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("backbone.layers.", i, ".");
    model.layers.push_back({{{prefix + "norm.weight", {{prefix + "mixer.", mixer}}}}});
  }
}

}  // namespace anabranch
