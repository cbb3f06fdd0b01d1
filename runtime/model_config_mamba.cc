// mamba and falcon_mamba: every layer is one Mamba-1 mixer. falcon_mamba normalises delta, B and C
// without weights before they are used.
#include "absl/strings/str_cat.h"
#include "runtime/model_config.h"

namespace anabranch {

void DescribeMamba(ConfigReader& config, ModelDescription& model) {
  const bool falcon = model.model_type == "falcon_mamba";
  const int64_t layers = config.Integer("num_hidden_layers", 32, 1, kMaxLayers);
  const int64_t hidden = model.hidden;

  Mamba1Spec mixer;
  mixer.inner = config.Integer("expand", 2, 1, kMaxExpand) * hidden;
  mixer.state_dim = config.Integer("state_size", 16, 1, kMaxStateDim);
  mixer.dt_rank = ReadDtRank(config, "time_step_rank", hidden);
  mixer.conv_width =
      static_cast<int32_t>(config.Integer("conv_kernel", 4, kMinConvWidth, kMaxConvWidth));
  mixer.conv_bias = config.Bool("use_conv_bias", true);
  mixer.proj_bias = config.Bool("use_bias", false);
  if (falcon) {
    mixer.inner_norm = Mamba1Spec::InnerNorm::kUnweighted;
    mixer.inner_norm_eps = ReadEps(config, "mixer_rms_eps", 1e-6);
  }

  model.norm_eps = ReadEps(config, "layer_norm_epsilon", 1e-5);
  model.embedding_name = "backbone.embeddings.weight";
  model.aliases = {{"backbone.embeddings.", {"backbone.embedding."}}};
  model.final_norm_name = "backbone.norm_f.weight";
  model.head_name = "lm_head.weight";
  model.tied_head = config.Bool("tie_word_embeddings", true);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("backbone.layers.", i, ".");
    model.layers.push_back({{{prefix + "norm.weight", {{prefix + "mixer.", mixer}}}}});
  }
}

}  // namespace anabranch
