#include "runtime/mixer_config.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

constexpr double kMaxMultiplier = 1e6;

bool IsAuto(ConfigReader& config, absl::string_view key) {
  if (!config.IsString(key)) return !config.Has(key);
  if (config.String(key, "") != "auto") config.Fail(key, "expected an integer or \"auto\"");
  return true;
}

}  // namespace

float ReadMultiplier(ConfigReader& config, absl::string_view key) {
  return static_cast<float>(config.Number(key, 1, -kMaxMultiplier, kMaxMultiplier));
}

std::vector<float> ReadMultipliers(ConfigReader& config, absl::string_view key, size_t count) {
  if (!config.Has(key)) return std::vector<float>(count, 1);
  const std::vector<double> factors = config.Numbers(key, count, -kMaxMultiplier, kMaxMultiplier);
  return std::vector<float>(factors.begin(), factors.end());
}

float ReadEps(ConfigReader& config, absl::string_view key, double fallback) {
  return static_cast<float>(config.Number(key, fallback, 0, 1));
}

int64_t ReadDtRank(ConfigReader& config, absl::string_view key, int64_t hidden) {
  if (IsAuto(config, key)) return (hidden + 15) / 16;
  return config.Integer(key, std::nullopt, 1, kMaxHidden);
}

void CheckActivation(ConfigReader& config, absl::string_view key, absl::string_view supported) {
  const std::string activation = config.String(key, supported);
  if (activation == supported || (activation == "swish" && supported == "silu")) return;
  config.Fail(key, absl::StrCat("'", activation, "' is not supported; supported: ", supported));
}

void ReadExpertCounts(ConfigReader& config, absl::string_view experts_key, int64_t default_experts,
                      int64_t default_chosen, MoeSpec& moe) {
  constexpr int64_t kMaxChosen = 256;
  moe.experts = static_cast<int32_t>(config.Integer(experts_key, default_experts, 1, kMaxExperts));
  moe.chosen =
      static_cast<int32_t>(config.Integer("num_experts_per_tok", default_chosen, 1, kMaxChosen));
  if (moe.chosen > moe.experts) {
    config.Fail("num_experts_per_tok",
                absl::StrCat(moe.chosen, " is more than ", experts_key, " = ", moe.experts));
  }
}

Mamba2Spec ReadMamba2(ConfigReader& config, const Mamba2Keys& keys, std::optional<int64_t> inner,
                      absl::string_view inner_name) {
  Mamba2Spec mixer;
  mixer.heads = config.Integer(keys.heads, keys.default_heads, 1, kMaxHeads);
  mixer.groups = config.Integer(keys.groups, keys.default_groups, 1, kMaxHeads);
  mixer.state_dim = config.Integer(keys.state_dim, keys.default_state_dim, 1, kMaxStateDim);
  if (inner && keys.default_head_dim == 0 && IsAuto(config, keys.head_dim)) {
    mixer.head_dim = std::max<int64_t>(*inner / mixer.heads, 1);
  } else {
    mixer.head_dim = config.Integer(keys.head_dim, keys.default_head_dim, 1, kMaxHeadDim);
  }
  mixer.inner = mixer.heads * mixer.head_dim;
  if (inner && mixer.inner != *inner) {
    config.Fail(keys.heads,
                absl::StrCat(mixer.heads, " heads of ", keys.head_dim, " = ", mixer.head_dim,
                             " do not make ", inner_name, " = ", *inner));
  }
  if (mixer.heads % mixer.groups != 0) {
    config.Fail(keys.groups, absl::StrCat(mixer.groups, " does not divide ", keys.heads));
  }
  mixer.conv_width =
      static_cast<int32_t>(config.Integer(keys.conv_width, 4, kMinConvWidth, kMaxConvWidth));
  if (!keys.conv_bias.empty()) mixer.conv_bias = config.Bool(keys.conv_bias, true);
  mixer.in_bias = config.Bool(keys.in_bias, false);
  mixer.out_bias = config.Bool(keys.out_bias, false);
  std::tie(mixer.dt_lo, mixer.dt_hi) = config.Range(keys.dt_limit, mixer.dt_lo, mixer.dt_hi);
  return mixer;
}

AttentionSpec ReadAttention(ConfigReader& config, const AttentionKeys& keys) {
  AttentionSpec mixer;
  mixer.heads = config.Integer("num_attention_heads", keys.default_heads, 1, kMaxHeads);
  mixer.kv_heads = config.Integer("num_key_value_heads", mixer.heads, 1, kMaxHeads);
  const bool derived = !config.Has(keys.head_dim) && keys.default_head_dim == 0;
  const int64_t part = std::max<int64_t>(keys.width / mixer.heads, 1);
  mixer.head_dim = config.Integer(
      keys.head_dim, derived ? part : std::max<int64_t>(keys.default_head_dim, 1), 1, kMaxHeadDim);
  if (derived && keys.width % mixer.heads != 0) {
    config.Fail("num_attention_heads", absl::StrCat("does not divide ", keys.width_name, ", and ",
                                                    keys.head_dim, " is absent"));
  }
  if (mixer.heads % mixer.kv_heads != 0) {
    config.Fail("num_key_value_heads", "does not divide num_attention_heads");
  }
  mixer.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(mixer.head_dim)));
  mixer.bias = config.Bool("attention_bias", false);
  return mixer;
}

void ReadRope(ConfigReader& config, double default_factor, AttentionSpec& mixer) {
  constexpr double kMaxTheta = 1e15;
  ConfigReader rope = config.Object("rope_parameters");
  mixer.rope_theta =
      rope.Number("rope_theta", config.Number("rope_theta", 10000, 1, kMaxTheta), 1, kMaxTheta);
  const double factor = rope.Number(
      "partial_rotary_factor", config.Number("partial_rotary_factor", default_factor, 0, 1), 0, 1);
  config.Merge(rope);
  mixer.rotary_dim = static_cast<int32_t>(factor * static_cast<double>(mixer.head_dim));
  if (mixer.rotary_dim % 2 != 0 || mixer.rotary_dim == 0) {
    config.Fail("partial_rotary_factor",
                absl::StrCat("rotates ", mixer.rotary_dim, " channels; expected an even number"));
  }
}

}  // namespace anabranch
