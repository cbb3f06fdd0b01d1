// config.json (and generation_config.json) of a model folder -> ModelDescription. Pure functions of
// the text. Old and new spellings are accepted: renamed keys, Infinity bare or wrapped, null for a
// default, either list of layer kinds. Every size is checked to be positive and bounded before
// anything is computed from it.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/config_reader.h"
#include "runtime/mixer_config.h"
#include "runtime/model_description.h"

namespace anabranch {

// `generation_config` may be empty; its eos_token_id overrides the other. INVALID_ARGUMENT names
// the key, the value and what is allowed; for an unknown model_type the supported ones.
absl::StatusOr<ModelDescription> ParseModelConfig(absl::string_view config,
                                                  absl::string_view generation_config);

// One function per family, in its own file: fills everything but token ids and reports problems
// through the reader.
void DescribeMamba(ConfigReader& config, ModelDescription& model);  // mamba and falcon_mamba
void DescribeMamba2(ConfigReader& config, ModelDescription& model);
void DescribeGraniteHybrid(ConfigReader& config, ModelDescription& model);
void DescribeJamba(ConfigReader& config, ModelDescription& model);
void DescribeNemotronH(ConfigReader& config, ModelDescription& model);
void DescribeZamba(ConfigReader& config, ModelDescription& model);
void DescribeZamba2(ConfigReader& config, ModelDescription& model);
void DescribeBamba(ConfigReader& config, ModelDescription& model);
void DescribeFalconH1(ConfigReader& config, ModelDescription& model);

}  // namespace anabranch
