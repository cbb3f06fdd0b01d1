// config.json (and generation_config.json) of a model folder -> ModelDescription. Pure functions of
// the text. Old and new spellings are accepted: renamed keys, Infinity bare or wrapped, null for a
// default, either list of layer kinds. Every size is checked to be positive and bounded before
// anything is computed from it.
#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/config_reader.h"
#include "runtime/model_description.h"

namespace anabranch {

// `generation_config` may be empty; its eos_token_id overrides the other. INVALID_ARGUMENT names
// the key, the value and what is allowed; for an unknown model_type the supported ones.
absl::StatusOr<ModelDescription> ParseModelConfig(absl::string_view config,
                                                  absl::string_view generation_config);

// Bounds shared by the families. They keep every product of two sizes far inside 64 bits.
inline constexpr int64_t kMaxHidden = 1 << 20;
inline constexpr int64_t kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxHeads = 1 << 16;
inline constexpr int64_t kMaxHeadDim = 1 << 14;
inline constexpr int64_t kMaxStateDim = 1 << 14;
inline constexpr int64_t kMaxExpand = 64;
inline constexpr int64_t kMinConvWidth = 2, kMaxConvWidth = 8;

// One function per family, in its own file: fills everything but token ids and reports problems
// through the reader.
void DescribeMamba(ConfigReader& config, ModelDescription& model);  // mamba and falcon_mamba
void DescribeMamba2(ConfigReader& config, ModelDescription& model);
void DescribeGraniteHybrid(ConfigReader& config, ModelDescription& model);

}  // namespace anabranch
