#include "runtime/model_config.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

struct Family {
  absl::string_view model_type;
  void (*describe)(ConfigReader&, ModelDescription&);
  absl::string_view activation;  // hidden_act of the feed-forward
};

// clang-format off
constexpr Family kFamilies[] = {
    {"bamba", DescribeBamba, "silu"},
    {"mamba", DescribeMamba, "silu"},
    {"falcon_mamba", DescribeMamba, "silu"},
    {"mamba2", DescribeMamba2, "silu"},
    {"falcon_h1", DescribeFalconH1, "silu"},
    {"granitemoehybrid", DescribeGraniteHybrid, "silu"},
    {"jamba", DescribeJamba, "silu"},
    {"nemotron_h", DescribeNemotronH, "silu"},
    {"zamba", DescribeZamba, "gelu"},
    {"zamba2", DescribeZamba2, "gelu"},
};
// clang-format on

std::string SupportedFamilies() {
  return absl::StrJoin(kFamilies, ", ", [](std::string* out, const Family& family) {
    absl::StrAppend(out, family.model_type);
  });
}

// Old files say rope_scaling {type}, newer ones rope_scaling or rope_parameters {rope_type}.
void CheckRopeType(ConfigReader& config) {
  for (absl::string_view key : {"rope_parameters", "rope_scaling"}) {
    ConfigReader rope = config.Object(key);
    for (absl::string_view name : {"rope_type", "type"}) {
      const std::string type = rope.String(name, "default");
      if (type != "default") {
        rope.Fail(name, absl::StrCat("'", type, "' is not supported; supported: default"));
      }
    }
    config.Merge(rope);
  }
}

void ReadTokenIds(ConfigReader& config, ModelDescription& model) {
  model.eos_token_ids = config.TokenIds("eos_token_id", model.vocab);
  const auto bos = config.TokenIds("bos_token_id", model.vocab);
  if (!bos.empty()) model.bos_token_id = bos.front();
}

}  // namespace

absl::StatusOr<ModelDescription> ParseModelConfig(absl::string_view config_text,
                                                  absl::string_view generation_text) {
  ANABRANCH_ASSIGN_OR_RETURN(ConfigReader config, ConfigReader::Parse(config_text, "config.json"));
  ModelDescription model;
  model.model_type = config.String("model_type", "");
  const Family* found = nullptr;
  for (const Family& family : kFamilies) {
    if (family.model_type == model.model_type) found = &family;
  }
  if (found == nullptr) {
    config.Fail("model_type", absl::StrCat("'", model.model_type,
                                           "' is not supported; supported: ", SupportedFamilies()));
    return config.status();
  }
  model.hidden = config.Integer("hidden_size", std::nullopt, 1, kMaxHidden);
  model.vocab = config.Integer("vocab_size", std::nullopt, 1, kMaxVocab);
  CheckActivation(config, "hidden_act", found->activation);
  CheckRopeType(config);
  ANABRANCH_RETURN_IF_ERROR(config.status());
  found->describe(config, model);
  ReadTokenIds(config, model);
  ANABRANCH_RETURN_IF_ERROR(config.status());

  if (!generation_text.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(ConfigReader generation,
                               ConfigReader::Parse(generation_text, "generation_config.json"));
    if (generation.Has("eos_token_id")) {
      model.eos_token_ids = generation.TokenIds("eos_token_id", model.vocab);
    }
    ANABRANCH_RETURN_IF_ERROR(generation.status());
  }
  return model;
}

}  // namespace anabranch
