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
#include "kernels/moe.h"
#include "kernels/norm.h"

namespace anabranch {

struct Mamba1Spec {
  int64_t inner = 0, state_dim = 0, dt_rank = 0;
  // Equal parts of `inner`, each with its own projections into delta, B and C and into dt.
  int64_t heads = 1;
  // kHeads: those tensors have a leading dimension of heads and other names, and the rows of the
  // first projection alternate between u and z instead of one half after the other.
  enum class Layout : uint8_t { kHalves, kHeads } layout = Layout::kHalves;
  int32_t conv_width = 4;
  bool conv_bias = true, proj_bias = false;
  // Norm of delta, B and C before they are used: without weights (falcon_mamba) or with (jamba).
  enum class InnerNorm : uint8_t { kNone, kUnweighted, kWeighted } inner_norm = InnerNorm::kNone;
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

// A low-rank addition to each projection into a layer whose weights are shared: the index-th of
// the adapters stored with them.
struct AdapterSpec {
  int64_t rank = 0;  // 0: none
  int64_t index = 0;
};

struct AttentionSpec {
  int64_t in_width = 0;  // of what is projected into queries, keys and values; 0: hidden
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 1;      // of the products of queries and keys
  float key_scale = 1;  // of the keys, before they are rotated and kept
  bool bias = false;
  int32_t rotary_dim = 0;  // 0: no position signal
  double rope_theta = 10000;
  AdapterSpec adapter;  // of queries, keys and values
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
  AdapterSpec adapter;  // of the fused matrix
};

// down(activation(up x)). Names: up_proj, down_proj.
struct MlpSpec {
  int64_t width = 0;
  bool bias = false;
  kernels::Activation activation = kernels::Activation::kRelu2;
};

// The sum of a few experts' MLPs, weighted, which a router chooses for each token.
struct MoeSpec {
  int32_t experts = 0, chosen = 0;
  int64_t width = 0;   // of an expert's inside
  int64_t latent = 0;  // of what experts read and give, if they work between projections; 0: hidden
  bool gated = true;
  kernels::Activation activation = kernels::Activation::kSilu;
  kernels::RouterKind router = kernels::RouterKind::kSoftmaxThenTopK;
  bool choice_bias = false;  // a tensor beside a kSigmoid router; see kernels::RouteParams
  int32_t groups = 1, top_groups = 1;
  bool normalize = false;
  float scale = 1;
  std::string router_name = "router";
  // An expert's matrices: experts.<e>.<name>.weight, or all experts' stacked in one tensor each.
  bool stacked = false;
  std::vector<std::string> in_names = {"gate_proj", "up_proj"};
  std::string out_name = "down_proj";
  std::string stacked_in = "experts.gate_up_proj", stacked_out = "experts.down_proj";
};

// W x, of the width of the residual, without a bias.
struct LinearSpec {
  std::string name;
};

using MixerSpec =
    std::variant<Mamba1Spec, Mamba2Spec, AttentionSpec, GatedMlpSpec, MlpSpec, MoeSpec, LinearSpec>;

// out_scale * mixer(in_scale * x). Tensor names are `prefix`, with its final dot, + the mixer's
// own.
struct Branch {
  std::string prefix;
  MixerSpec mixer;
  float in_scale = 1, out_scale = 1;
};

// mixer(rms_norm(x)), or mixer(x) if `norm` is empty.
struct ChainStage {
  std::string norm, prefix;
  MixerSpec mixer;
};

// x += residual_scale * (sum of branches of rms_norm(x)).
struct ResidualStep {
  std::string norm;  // name of the norm's weight
  std::vector<Branch> branches;
  // Stages one after the other, the first of which reads [x, embedding of the token]. What the last
  // gives is added to the x that the norm of this step reads, and to nothing else. Stages of
  // several steps may name the same tensors: weights are loaded once, each stage has its own state.
  std::vector<ChainStage> side_chain = {};
};

struct LayerDescription {
  std::vector<ResidualStep> steps;
};

// Tensors `prefix` + rest may be stored as one of `others` + rest instead: an older name, or what a
// writer that drops duplicates kept of a shared tensor. A file may hold more than one; one is used.
struct TensorAliases {
  std::string prefix;
  std::vector<std::string> others;
};

struct ModelDescription {
  std::string model_type;  // as in config.json
  int64_t hidden = 0, vocab = 0;
  float norm_eps = 1e-5f;
  float embedding_scale = 1, residual_scale = 1;
  float logits_scale = 1;  // logits are multiplied by it
  std::string embedding_name, final_norm_name, head_name;
  std::vector<TensorAliases> aliases;
  // The head uses the embedding's matrix; a head in the file is not used. Also the case when the
  // file has no head.
  bool tied_head = false;
  std::vector<LayerDescription> layers;
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none
};

}  // namespace anabranch
