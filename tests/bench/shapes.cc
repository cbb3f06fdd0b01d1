#include "tests/bench/shapes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace anabranch::bench {
namespace {

std::string Mamba2(int layers, int hidden, int vocab) {
  return absl::StrCat(R"({"model_type": "mamba2", "vocab_size": )", vocab, R"(, "hidden_size": )",
                      hidden, R"(, "num_hidden_layers": )", layers, R"(, "num_heads": )",
                      2 * hidden / 64, R"(, "head_dim": 64, "state_size": 128, "n_groups": 1,
    "expand": 2, "conv_kernel": 4, "tie_word_embeddings": true})");
}

std::string Mamba(int layers, int hidden, int vocab) {
  return absl::StrCat(R"({"model_type": "mamba", "vocab_size": )", vocab, R"(, "hidden_size": )",
                      hidden, R"(, "num_hidden_layers": )", layers,
                      R"(, "state_size": 16, "expand": 2, "conv_kernel": 4, "time_step_rank": )",
                      hidden / 16, R"(, "tie_word_embeddings": true})");
}

// Granite 4 H Micro where `parts` is 1; else narrower by so much, with heads of the same sizes.
std::string Granite4H(int parts, int vocab, int layers, const std::vector<int>& attention) {
  std::vector<std::string> types(layers, "\"mamba\"");
  for (const int layer : attention) types[layer] = "\"attention\"";
  return absl::StrCat(R"({"model_type": "granitemoehybrid", "vocab_size": )", vocab,
                      R"(, "hidden_size": )", 2048 / parts, R"(, "num_hidden_layers": )", layers,
                      R"(, "num_attention_heads": )", 32 / parts, R"(, "num_key_value_heads": )",
                      8 / parts, R"(, "shared_intermediate_size": )", 8192 / parts,
                      R"(, "mamba_n_heads": )", 64 / parts, R"(, "num_local_experts": 0,
    "num_experts_per_tok": 0, "mamba_d_head": 64, "mamba_d_state": 128,
    "mamba_n_groups": 1, "mamba_expand": 2, "mamba_d_conv": 4, "embedding_multiplier": 12,
    "residual_multiplier": 0.22, "attention_multiplier": 0.015625, "logits_scaling": 8,
    "position_embedding_type": "nope", "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
    "layer_types": [)",
                      absl::StrJoin(types, ", "), "]}");
}

std::string NemotronH8B() {
  return R"({"model_type": "nemotron_h", "vocab_size": 131072, "hidden_size": 4096,
    "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    "num_hidden_layers": 52, "mamba_num_heads": 128, "mamba_head_dim": 64, "ssm_state_size": 128,
    "n_groups": 8, "conv_kernel": 4, "num_attention_heads": 32, "num_key_value_heads": 8,
    "attention_head_dim": 128, "intermediate_size": 21504, "mlp_hidden_act": "relu2",
    "layer_norm_epsilon": 1e-5, "tie_word_embeddings": false})";
}

struct PeerRow {
  const char *shape, *work;
  Peer peer;
};

constexpr PeerRow kPeers[] = {
    {"mamba2-2.7b", "decode, batch 1", {3.15, 1.6}},
    {"mamba2-2.7b", "decode, batch 16", {4.79, 2.4}},
    {"mamba2-2.7b", "decode, batch 64", {9.69, 4.8}},
    {"mamba2-2.7b", "decode, batch 256", {28.3, 12}},
    {"mamba2-2.7b", "prefill 2,048", {138, 25}},
    {"mamba2-2.7b", "prefill 8,192", {132, 80}},
    {"mamba2-2.7b", "prefill 32,768", {385, 290}},
    {"mamba2-2.7b", "prefill 131,072", {1598, 1150}},
    {"mamba-2.8b", "decode, batch 1", {3.37, 1.7}},
    {"mamba-2.8b", "decode, batch 16", {3.56, 1.8}},
    {"mamba-2.8b", "decode, batch 64", {4.71, 2.2}},
    {"mamba-2.8b", "decode, batch 256", {8.27, 3.8}},
    {"mamba-2.8b", "prefill 2,048", {60, 28}},
    {"mamba-2.8b", "prefill 8,192", {124, 85}},
    {"mamba-2.8b", "prefill 32,768", {489, 330}},
    {"mamba2-130m", "decode, batch 1", {0.68, 0.25}},
    {"mamba2-130m", "decode, batch 16", {0.86, 0.35}},
    {"mamba2-130m", "decode, batch 64", {1.38, 0.6}},
    {"mamba2-130m", "decode, batch 256", {3.52, 1.6}},
    {"mamba2-130m", "prefill 2,048", {47, 5}},
    {"mamba2-130m", "prefill 8,192", {49, 8}},
    {"mamba2-130m", "prefill 32,768", {50, 20}},
    {"mamba2-130m", "prefill 131,072", {121, 70}},
};

}  // namespace

const std::vector<Shape>& Shapes() {
  static const auto* shapes = new std::vector<Shape>{
      {"mamba2-2.7b", Mamba2(64, 2560, 50288)},
      {"mamba-2.8b", Mamba(64, 2560, 50280)},
      {"mamba2-130m", Mamba2(24, 768, 50288)},
      {"granite4-h-micro", Granite4H(1, 100352, 40, {5, 15, 25, 35})},
      {"granite4-h-narrow", Granite4H(4, 512, 10, {5})},
      {"nemotron-h-8b", NemotronH8B()},
      {"tiny", Mamba2(2, 128, 512)},  // to try the benchmark itself
  };
  return *shapes;
}

const Shape* FindShape(absl::string_view name) {
  const auto found = std::find_if(Shapes().begin(), Shapes().end(),
                                  [&](const Shape& shape) { return shape.name == name; });
  return found == Shapes().end() ? nullptr : &*found;
}

Peer PeerOf(absl::string_view shape, absl::string_view work) {
  for (const PeerRow& row : kPeers) {
    if (row.shape == shape && row.work == work) return row.peer;
  }
  return {};
}

}  // namespace anabranch::bench
