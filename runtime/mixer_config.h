// What families share when they read a config.json: the parameters of mixers, bounded and checked
// against each other. Families spell keys differently and have their own defaults, so readers take
// both.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "runtime/config_reader.h"
#include "runtime/model_description.h"

namespace anabranch {

// Bounds. They keep every product of two sizes far inside 64 bits.
inline constexpr int64_t kMaxHidden = 1 << 20;
inline constexpr int64_t kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxLayers = 4096;
inline constexpr int64_t kMaxHeads = 1 << 16;
inline constexpr int64_t kMaxHeadDim = 1 << 14;
inline constexpr int64_t kMaxStateDim = 1 << 14;
inline constexpr int64_t kMaxExpand = 64;
inline constexpr int64_t kMaxExperts = 1 << 14;
inline constexpr int64_t kMinConvWidth = 2, kMaxConvWidth = 8;

// A finite factor, 1 if absent.
float ReadMultiplier(ConfigReader& config, absl::string_view key);
// A list of `count` of them, all 1 if absent.
std::vector<float> ReadMultipliers(ConfigReader& config, absl::string_view key, size_t count);
// An epsilon of a norm.
float ReadEps(ConfigReader& config, absl::string_view key, double fallback);
// A Mamba-1 rank: an integer, or "auto" and absent for hidden / 16, rounded up.
int64_t ReadDtRank(ConfigReader& config, absl::string_view key, int64_t hidden);
// Fails unless the activation under `key` is `supported` (also its fallback); silu is swish, too.
void CheckActivation(ConfigReader& config, absl::string_view key, absl::string_view supported);

// How many experts there are, and how many each token uses.
void ReadExpertCounts(ConfigReader& config, absl::string_view experts_key, int64_t default_experts,
                      int64_t default_chosen, MoeSpec& moe);

// Keys of a Mamba-2 mixer and their fallbacks. An empty key is not read.
struct Mamba2Keys {
  absl::string_view heads = "mamba_n_heads", head_dim = "mamba_d_head";
  absl::string_view groups = "mamba_n_groups", state_dim = "mamba_d_state";
  absl::string_view conv_width = "mamba_d_conv", conv_bias = "mamba_conv_bias";
  absl::string_view in_bias = "mamba_proj_bias", out_bias = "mamba_proj_bias";
  absl::string_view dt_limit = "time_step_limit";
  int64_t default_heads = 128, default_groups = 1, default_state_dim = 256;
  // Of head_dim; 0: "auto", which is inner / heads.
  int64_t default_head_dim = 0;
};
// With `inner` given, heads times head_dim must be `inner`, which `inner_name` calls in messages.
// norm_groups is 1 and norm_eps the family's matter.
Mamba2Spec ReadMamba2(ConfigReader& config, const Mamba2Keys& keys, std::optional<int64_t> inner,
                      absl::string_view inner_name);

// Keys of attention. `width` is what head_dim is derived from where its key is absent, and
// `width_name` its name in messages. The scale is head_dim^-0.5; no position signal.
struct AttentionKeys {
  int64_t width = 0;
  absl::string_view width_name = "hidden_size";
  absl::string_view head_dim = "head_dim";
  int64_t default_heads = 32, default_head_dim = 0;  // 0: width / heads
};
AttentionSpec ReadAttention(ConfigReader& config, const AttentionKeys& keys);

// Rotary embedding: rope_theta and partial_rotary_factor, in rope_parameters or beside it.
void ReadRope(ConfigReader& config, double default_factor, AttentionSpec& mixer);

}  // namespace anabranch
