// One description for every architecture (MODELS.md section 9): an embedding, a list of layers, a
// final norm and a head. A layer is an ordered list of residual steps x += scale * mixer(norm(x)).
// A new architecture is a new description plus a table of weight names, not new engine code.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/norm.h"

namespace anabranch {

struct Mamba1Spec {
  int64_t inner = 0, state_dim = 0, dt_rank = 0;
  int32_t conv_width = 4;
  bool conv_bias = true, proj_bias = false;
  // Norm without weights of delta, B and C before they are used (falcon_mamba).
  enum class InnerNorm : uint8_t { kNone, kUnweighted } inner_norm = InnerNorm::kNone;
  float inner_norm_eps = 1e-6f;
};

struct Mamba2Spec {
  int64_t inner = 0, heads = 0, head_dim = 0, state_dim = 0, groups = 1;
  int32_t conv_width = 4;
  bool conv_bias = true, in_bias = false, out_bias = false;
  // Factors of the projection's sections z, x, B, C and dt.
  std::array<float, 5> section_scale = {1, 1, 1, 1, 1};
  float dt_lo = 0, dt_hi = std::numeric_limits<float>::infinity();
  kernels::GateOrder gate = kernels::GateOrder::kGateFirst;
  int32_t norm_groups = 1;
  float norm_eps = 1e-5f;
};

struct AttentionSpec {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;      // of the products of queries and keys
  float key_scale = 1;  // of the keys, before they are rotated and kept
  bool bias = false;
  int32_t rotary_dim = 0;  // 0: no position signal
  double rope_theta = 10000;
};

// down(activation(gate_scale * gate x) * (up x)).
struct GatedMlpSpec {
  int64_t width = 0;
  bool bias = false;
  kernels::Activation activation = kernels::Activation::kSilu;
  float gate_scale = 1;
  // Names: gate and up, or one [2F, H] matrix with the gate's rows first; then down.
  std::vector<std::string> in_names = {"gate_proj", "up_proj"};
  std::string out_name = "down_proj";
};

using MixerSpec = std::variant<Mamba1Spec, Mamba2Spec, AttentionSpec, GatedMlpSpec>;

// out_scale * mixer(in_scale * x). Tensor names are `prefix`, with its final dot, + the mixer's
// own.
struct Branch {
  std::string prefix;
  MixerSpec mixer;
  float in_scale = 1, out_scale = 1;
};

// x += residual_scale * (sum of branches of rms_norm(x)).
struct ResidualStep {
  std::string norm;  // name of the norm's weight
  std::vector<Branch> branches;
};

struct LayerDescription {
  std::vector<ResidualStep> steps;
};

struct ModelDescription {
  std::string model_type;  // as in config.json
  int64_t hidden = 0, vocab = 0;
  float norm_eps = 1e-5f;
  bool residual_in_fp32 = false;  // matters in bfloat16 only
  float embedding_scale = 1, residual_scale = 1;
  float logits_scale = 1;  // logits are multiplied by it
  std::string embedding_name, final_norm_name, head_name;
  std::string embedding_alias;  // older name of the embedding; empty: none
  // The head uses the embedding's matrix; a head in the file is not used. Also the case when the
  // file has no head.
  bool tied_head = false;
  std::vector<LayerDescription> layers;
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none
};

}  // namespace anabranch
