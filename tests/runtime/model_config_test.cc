#include "runtime/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/runtime/model_files.h"

namespace anabranch {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

json Golden(const std::string& model) {
  return json::parse(
      testing::ReadWholeFile(ANABRANCH_GOLDEN_DIR "/models/" + model + "/config.json"));
}

ModelDescription Parsed(const std::string& config, const std::string& generation = "") {
  const auto model = ParseModelConfig(config, generation);
  EXPECT_TRUE(model.ok()) << model.status() << "\n" << config;
  return model.value_or(ModelDescription());
}

std::string Refusal(const json& config) {
  const auto model = ParseModelConfig(config.dump(), "");
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << config.dump();
  return std::string(model.status().message());
}

const Mamba2Spec& FirstMamba2(const ModelDescription& model) {
  return std::get<Mamba2Spec>(model.layers.at(0).steps.at(0).branches.at(0).mixer);
}

TEST(ModelConfig, ReadsEachFamily) {
  const ModelDescription mamba = Parsed(Golden("mamba").dump());
  EXPECT_EQ(mamba.layers.size(), 3);
  EXPECT_TRUE(mamba.tied_head);
  const auto& mamba1 = std::get<Mamba1Spec>(mamba.layers[2].steps[0].branches[0].mixer);
  EXPECT_EQ(mamba1.inner, 128);
  EXPECT_EQ(mamba1.dt_rank, 4);
  EXPECT_EQ(mamba1.inner_norm, Mamba1Spec::InnerNorm::kNone);
  const ModelDescription falcon = Parsed(Golden("falcon_mamba").dump());
  EXPECT_EQ(std::get<Mamba1Spec>(falcon.layers[0].steps[0].branches[0].mixer).inner_norm,
            Mamba1Spec::InnerNorm::kUnweighted);
  EXPECT_EQ(FirstMamba2(Parsed(Golden("mamba2").dump())).heads, 8);

  const ModelDescription granite = Parsed(Golden("granitemoehybrid_dense").dump());
  ASSERT_EQ(granite.layers.size(), 4);
  ASSERT_EQ(granite.layers[1].steps.size(), 2);
  const auto& attention = std::get<AttentionSpec>(granite.layers[1].steps[0].branches[0].mixer);
  EXPECT_EQ(attention.kv_heads, 2);
  EXPECT_FLOAT_EQ(attention.scale, 0.2f);
  EXPECT_EQ(attention.rotary_dim, 0);
  EXPECT_FLOAT_EQ(granite.logits_scale, 1 / 1.5f);
}

TEST(ModelConfig, RotatesAPartOfBambasHeads) {
  json config = Golden("bamba");
  const auto mixer = [](const json& c, int layer) {
    return Parsed(c.dump()).layers[layer].steps[0].branches[0].mixer;
  };
  const auto rotated = [&](const json& c) {
    return std::get<AttentionSpec>(mixer(c, 2)).rotary_dim;
  };
  EXPECT_TRUE(std::holds_alternative<Mamba2Spec>(mixer(config, 1)));
  EXPECT_EQ(rotated(config), 8);
  config["attn_rotary_emb"] = 12;
  EXPECT_EQ(rotated(config), 12);
  for (int bad : {0, 5, 18}) {
    config["attn_rotary_emb"] = bad;
    EXPECT_THAT(Refusal(config), HasSubstr("attn_rotary_emb"));
  }
  config["attn_rotary_emb"] = nullptr;
  config.erase("rope_parameters");
  config.erase("partial_rotary_factor");
  EXPECT_EQ(rotated(config), 8);  // half of them, if the file does not say
  config["attn_layer_indices"] = {5};
  EXPECT_THAT(Refusal(config), HasSubstr("attn_layer_indices: expected ascending indices from 0"));
  config["attn_layer_indices"] = nullptr;
  EXPECT_TRUE(std::holds_alternative<Mamba2Spec>(mixer(config, 2)));
}

TEST(ModelConfig, ReadsFalconH1sParallelBranchesAndFactors) {
  json config = Golden("falcon_h1");
  const ModelDescription model = Parsed(config.dump());
  EXPECT_FLOAT_EQ(model.embedding_scale, 1.7f);
  EXPECT_FLOAT_EQ(model.logits_scale, 0.6f);
  ASSERT_EQ(model.layers.size(), 3);
  ASSERT_EQ(model.layers[1].steps.size(), 2);
  const std::vector<Branch>& parallel = model.layers[1].steps[0].branches;
  ASSERT_EQ(parallel.size(), 2);
  EXPECT_EQ(parallel[0].prefix, "model.layers.1.mamba.");
  EXPECT_FLOAT_EQ(parallel[0].in_scale, 0.95f);
  EXPECT_FLOAT_EQ(parallel[0].out_scale, 0.85f);
  EXPECT_THAT(std::get<Mamba2Spec>(parallel[0].mixer).section_scale,
              ElementsAre(0.9f, 1.1f, 0.8f, 1.2f, 0.7f));
  EXPECT_FLOAT_EQ(parallel[1].in_scale, 1.1f);
  EXPECT_FLOAT_EQ(parallel[1].out_scale, 0.9f);
  EXPECT_FLOAT_EQ(std::get<AttentionSpec>(parallel[1].mixer).key_scale, 0.8f);
  EXPECT_EQ(std::get<AttentionSpec>(parallel[1].mixer).rotary_dim, 16);
  const Branch& mlp = model.layers[1].steps[1].branches[0];
  EXPECT_FLOAT_EQ(std::get<GatedMlpSpec>(mlp.mixer).gate_scale, 1.1f);
  EXPECT_FLOAT_EQ(mlp.out_scale, 0.9f);

  EXPECT_EQ(FirstMamba2(model).gate, kernels::GateOrder::kGateOnly);
  config["mamba_rms_norm"] = true;
  EXPECT_EQ(FirstMamba2(Parsed(config.dump())).gate, kernels::GateOrder::kGateFirst);
  config["mamba_norm_before_gate"] = nullptr;
  EXPECT_EQ(FirstMamba2(Parsed(config.dump())).gate, kernels::GateOrder::kNormFirst);
  config["mamba_d_ssm"] = nullptr;  // expand * hidden_size, the same here
  config["rope_parameters"] = {{"rope_theta", 1e11}};
  for (const char* key : {"ssm_multipliers", "mlp_multipliers", "key_multiplier"}) {
    config[key] = nullptr;
  }
  const ModelDescription plain = Parsed(config.dump());
  EXPECT_EQ(FirstMamba2(plain).inner, 128);
  EXPECT_THAT(FirstMamba2(plain).section_scale, ::testing::Each(1.0f));
  const auto& attention = std::get<AttentionSpec>(plain.layers[0].steps[0].branches[1].mixer);
  EXPECT_EQ(attention.rope_theta, 1e11);
  EXPECT_EQ(attention.key_scale, 1);
}

TEST(ModelConfig, RefusesFactorsThatAreNotFiniteOrTooFew) {
  const json nan = {{"__float__", "NaN"}}, infinity = {{"__float__", "Infinity"}};
  for (const char* key :
       {"embedding_multiplier", "lm_head_multiplier", "key_multiplier", "ssm_in_multiplier",
        "ssm_out_multiplier", "attention_in_multiplier", "attention_out_multiplier"}) {
    for (const json& bad : {nan, infinity, json("x"), json(1e9), json::array({1})}) {
      json config = Golden("falcon_h1");
      config[key] = bad;
      EXPECT_THAT(Refusal(config), HasSubstr(key)) << bad;
    }
  }
  for (const json& bad : {json::array({1, 1, 1, 1}), json::array({1, 1, 1, 1, nan}), json(1),
                          json::array({1, 1, infinity, 1, 1}), json::array({1, "x", 1, 1, 1})}) {
    json config = Golden("falcon_h1");
    config["ssm_multipliers"] = bad;
    EXPECT_THAT(Refusal(config), AllOf(HasSubstr("ssm_multipliers"), HasSubstr("5 numbers")));
    config = Golden("falcon_h1");
    config["mlp_multipliers"] = bad;
    EXPECT_THAT(Refusal(config), AllOf(HasSubstr("mlp_multipliers"), HasSubstr("2 numbers")));
  }
  json config = Golden("falcon_h1");
  config["mamba_d_ssm"] = 96;
  EXPECT_THAT(Refusal(config), HasSubstr("mamba_d_ssm = 96"));
}

TEST(ModelConfig, SharesZambasBlockBetweenItsHybridLayers) {
  json config = Golden("zamba");
  const ModelDescription model = Parsed(config.dump());
  ASSERT_EQ(model.layers.size(), 6);
  EXPECT_TRUE(model.tied_head);
  for (int i : {0, 1, 3, 4}) EXPECT_TRUE(model.layers[i].steps[0].side_chain.empty()) << i;
  for (int i : {2, 5}) {
    const ResidualStep& step = model.layers[i].steps[0];
    ASSERT_EQ(step.side_chain.size(), 3) << i;
    EXPECT_EQ(step.side_chain[0].prefix, "model.layers.2.shared_transf.self_attn.");
    EXPECT_EQ(step.side_chain[2].prefix, "model.layers." + std::to_string(i) + ".");
    const auto& attention = std::get<AttentionSpec>(step.side_chain[0].mixer);
    EXPECT_EQ(attention.in_width, 128);
    EXPECT_EQ(attention.head_dim, 32);
    EXPECT_FLOAT_EQ(attention.scale, 0.25f);  // (32 / 2)^-0.5
    EXPECT_EQ(std::get<Mamba1Spec>(step.branches[0].mixer).heads, 2);
  }
  // The list in the file is what its writer computed from these.
  config["attn_layer_offset"] = 0;
  EXPECT_FALSE(Parsed(config.dump()).layers[3].steps[0].side_chain.empty());
  config["attn_layer_offset"] = 7;
  EXPECT_TRUE(Parsed(config.dump()).layers[5].steps[0].side_chain.empty());
}

TEST(ModelConfig, RefusesZambasThatDoNotFit) {
  const auto refused = [](const char* key, const json& value) {
    json config = Golden("zamba");
    config[key] = value;
    EXPECT_THAT(Refusal(config), HasSubstr(key)) << value;
    return Refusal(config);
  };
  refused("num_hidden_layers", 2);  // layer 2 is the first with the block
  refused("attn_layer_period", 0);
  refused("n_mamba_heads", 3);
  EXPECT_THAT(refused("attention_hidden_size", 64), HasSubstr("128"));
  EXPECT_THAT(refused("hidden_act", "silu"), HasSubstr("gelu"));
  refused("hidden_mamba_act", "gelu");
}

TEST(ModelConfig, TakesZamba2sBlocksInTurnWithAnAdapterForEachUse) {
  json config = Golden("zamba2");
  config["use_shared_attention_adapter"] = true;
  const ModelDescription model = Parsed(config.dump());
  const std::vector<std::pair<int, std::string>> uses = {{2, "model.layers.2."},
                                                         {4, "model.layers.4."}};
  for (size_t j = 0; j < uses.size(); ++j) {
    const ResidualStep& step = model.layers[uses[j].first].steps[0];
    ASSERT_EQ(step.side_chain.size(), 3);
    EXPECT_EQ(step.side_chain[1].prefix, uses[j].second + "shared_transformer.feed_forward.");
    const auto& mlp = std::get<GatedMlpSpec>(step.side_chain[1].mixer);
    EXPECT_EQ(mlp.activation, kernels::Activation::kGelu);
    EXPECT_EQ(mlp.adapter.rank, 8);
    EXPECT_EQ(mlp.adapter.index, j);
    EXPECT_EQ(std::get<AttentionSpec>(step.side_chain[0].mixer).adapter.index, j);
    EXPECT_EQ(std::get<AttentionSpec>(step.side_chain[0].mixer).adapter.rank, 8);
    EXPECT_FLOAT_EQ(std::get<Mamba2Spec>(step.branches[0].mixer).norm_eps, 1e-5f);
  }
  config["num_mem_blocks"] = 1;
  const ModelDescription one = Parsed(config.dump());
  EXPECT_EQ(one.layers[4].steps[0].side_chain[0].prefix,
            "model.layers.2.shared_transformer.self_attn.");
  const auto attention = [](const json& c) {
    return std::get<AttentionSpec>(Parsed(c.dump()).layers[2].steps[0].side_chain[0].mixer);
  };
  EXPECT_EQ(attention(config).rotary_dim, 32);
  config["use_long_context"] = true;
  EXPECT_NEAR(attention(config).rope_theta, 10000 * std::pow(8, 32.0 / 30), 1e-6);
  config["use_mem_rope"] = false;
  EXPECT_EQ(attention(config).rotary_dim, 0);
}

TEST(ModelConfig, ReadsZamba2sHybridLayersInEverySpelling) {
  const auto hybrid = [](const json& config) {
    std::vector<int64_t> found;
    const ModelDescription model = Parsed(config.dump());
    for (size_t i = 0; i < model.layers.size(); ++i) {
      if (!model.layers[i].steps[0].side_chain.empty()) found.push_back(i);
    }
    return found;
  };
  json config = Golden("zamba2");
  EXPECT_THAT(hybrid(config), ElementsAre(2, 4));
  config["layers_block_type"] = {"mamba", "hybrid", "mamba", "mamba", "mamba", "hybrid"};
  EXPECT_THAT(hybrid(config), ElementsAre(1, 5));
  config.erase("layers_block_type");
  config["hybrid_layer_ids"] = {0, 3};
  EXPECT_THAT(hybrid(config), ElementsAre(0, 3));
  config.erase("hybrid_layer_ids");
  config["num_hidden_layers"] = 54;
  EXPECT_THAT(hybrid(config), ElementsAre(6, 12, 18, 24, 30, 36, 42, 47, 51));
}

TEST(ModelConfig, RefusesZamba2sThatDoNotFit) {
  const auto refusal = [](const char* key, const json& value) {
    json config = Golden("zamba2");
    if (std::string(key) == "hybrid_layer_ids") config.erase("layers_block_type");
    config[key] = value;
    EXPECT_THAT(Refusal(config), HasSubstr(key)) << value;
    return Refusal(config);
  };
  EXPECT_THAT(refusal("num_mem_blocks", 3), HasSubstr("3 shared blocks for 2 hybrid layers"));
  EXPECT_THAT(refusal("layers_block_type", {"hybrid"}), HasSubstr("1 entries for 6 layers"));
  EXPECT_THAT(refusal("layers_block_type",
                      json::array({"mamba", "hybrid", "mamba", "mamba", "attention", "hybrid"})),
              AllOf(HasSubstr("'attention'"), HasSubstr("hybrid")));
  for (const json& bad : {json::array({2, 6}), json::array({-1}), json::array({4, 2}),
                          json::array({2, 2}), json::array({"x"}), json(3)}) {
    EXPECT_THAT(refusal("hybrid_layer_ids", bad), HasSubstr("ascending indices from 0 to 5"));
  }
  for (int bad : {0, -1}) refusal("adapter_rank", bad);
  refusal("n_mamba_heads", 7);
  refusal("mamba_headdim", 32);
  refusal("hidden_act", "silu");
}

TEST(ModelConfig, ReadsInfinityInEverySpelling) {
  for (const char* infinity : {"Infinity", R"({"__float__": "Infinity"})"}) {
    std::string text = Golden("mamba2").dump();
    const std::string old = R"({"__float__":"Infinity"})";
    text.replace(text.find(old), old.size(), infinity);
    const auto model = ParseModelConfig(text, "");
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_TRUE(std::isinf(FirstMamba2(*model).dt_hi));
    EXPECT_EQ(FirstMamba2(*model).dt_lo, 0);
  }
  json config = Golden("mamba2");
  config["time_step_limit"] = {0.001, 0.5};
  EXPECT_FLOAT_EQ(FirstMamba2(Parsed(config.dump())).dt_hi, 0.5f);
  config["time_step_limit"] = nullptr;
  EXPECT_TRUE(std::isinf(FirstMamba2(Parsed(config.dump())).dt_hi));
  // Inside a string the word is text.
  config["note"] = "to \"Infinity\" and NaN";
  Parsed(config.dump());
}

TEST(ModelConfig, RefusesStepLimitsThatAreNoRange) {
  for (const json& limit :
       {json::array({1, 0.5}), json::array({-1, 1}), json::array({0}), json(3),
        json::array({0, {{"__float__", "NaN"}}}), json::array({{{"__float__", "Infinity"}}, 1})}) {
    json config = Golden("mamba2");
    config["time_step_limit"] = limit;
    EXPECT_THAT(Refusal(config), HasSubstr("time_step_limit"));
  }
}

TEST(ModelConfig, ReadsLayerListsInEverySpelling) {
  json config = Golden("granitemoehybrid_dense");
  for (const char* key : {"layer_types", "layers_block_type"}) {
    config.erase("layer_types");
    config[key] = {"mamba", "attention", "linear_attention", "full_attention"};
    const ModelDescription model = Parsed(config.dump());
    for (int i : {1, 3}) {
      EXPECT_TRUE(std::holds_alternative<AttentionSpec>(model.layers[i].steps[0].branches[0].mixer))
          << i;
      EXPECT_TRUE(
          std::holds_alternative<Mamba2Spec>(model.layers[i - 1].steps[0].branches[0].mixer))
          << i;
    }
    config.erase(key);
  }
  config["layer_types"] = nullptr;
  for (const LayerDescription& layer : Parsed(config.dump()).layers) {
    EXPECT_TRUE(std::holds_alternative<Mamba2Spec>(layer.steps[0].branches[0].mixer));
  }
  config["layer_types"] = {"mamba", "mamba", "mamba", "hyena"};
  EXPECT_THAT(Refusal(config), AllOf(HasSubstr("'hyena'"), HasSubstr("full_attention")));
  config["layer_types"] = {"mamba"};
  EXPECT_THAT(Refusal(config), HasSubstr("1 entries for 4 layers"));
}

TEST(ModelConfig, TakesDefaultsForAbsentAndNullKeys) {
  const ModelDescription mamba =
      Parsed(R"({"model_type": "mamba", "hidden_size": 100, "vocab_size": 10, "state_size": null,
                 "num_hidden_layers": 2, "time_step_rank": "auto"})");
  const auto& mixer = std::get<Mamba1Spec>(mamba.layers[0].steps[0].branches[0].mixer);
  EXPECT_EQ(mixer.state_dim, 16);
  EXPECT_EQ(mixer.dt_rank, 7);  // ceil(100 / 16)
  EXPECT_TRUE(mixer.conv_bias);
  EXPECT_TRUE(mamba.tied_head);
  json granite = Golden("granitemoehybrid_dense");
  granite["num_key_value_heads"] = nullptr;
  granite["mamba_d_head"] = "auto";
  const ModelDescription model = Parsed(granite.dump());
  EXPECT_EQ(std::get<AttentionSpec>(model.layers[1].steps[0].branches[0].mixer).kv_heads, 4);
  EXPECT_EQ(FirstMamba2(model).head_dim, 16);
}

TEST(ModelConfig, ReadsRopeOldAndNew) {
  json config = Golden("granitemoehybrid_dense");
  config["position_embedding_type"] = "rope";
  config["rope_parameters"]["rope_theta"] = 5e6;
  const auto attention = [](const json& c) {
    return std::get<AttentionSpec>(Parsed(c.dump()).layers[1].steps[0].branches[0].mixer);
  };
  EXPECT_EQ(attention(config).rotary_dim, 16);
  EXPECT_EQ(attention(config).rope_theta, 5e6);
  config["rope_theta"] = 1e4;  // rope_parameters wins
  EXPECT_EQ(attention(config).rope_theta, 5e6);
  config.erase("rope_parameters");
  config["rope_theta"] = 1e11;
  config["partial_rotary_factor"] = 0.5;
  EXPECT_EQ(attention(config).rope_theta, 1e11);
  EXPECT_EQ(attention(config).rotary_dim, 8);
}

TEST(ModelConfig, NamesUnknownModelAndRopeTypes) {
  EXPECT_THAT(Refusal({{"model_type", "llama"}}),
              AllOf(HasSubstr("'llama'"), HasSubstr("mamba2"), HasSubstr("granitemoehybrid")));
  EXPECT_THAT(Refusal({{"hidden_size", 4}}), HasSubstr("model_type"));
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    for (const char* name : {"rope_type", "type"}) {
      for (const char* type : {"linear", "dynamic", "yarn", "llama3", "longrope"}) {
        json config = Golden("falcon_h1");
        config[key] = {{name, type}, {"factor", 2}};
        EXPECT_THAT(Refusal(config), AllOf(HasSubstr(type), HasSubstr("supported: default")));
      }
    }
  }
}

TEST(ModelConfig, RefusesOtherActivations) {
  json config = Golden("mamba");
  config["hidden_act"] = "gelu";
  EXPECT_THAT(Refusal(config), HasSubstr("'gelu'"));
}

const Branch& BranchAt(const ModelDescription& model, size_t layer, size_t step,
                       size_t branch = 0) {
  return model.layers.at(layer).steps.at(step).branches.at(branch);
}

TEST(ModelConfig, ReadsExpertsOfEachFamily) {
  const ModelDescription granite = Parsed(Golden("granitemoehybrid").dump());
  EXPECT_EQ(std::get<GatedMlpSpec>(BranchAt(granite, 0, 1, 0).mixer).width, 128);
  const auto& shared = std::get<MoeSpec>(BranchAt(granite, 0, 1, 1).mixer);
  EXPECT_EQ(shared.experts, 4);
  EXPECT_EQ(shared.chosen, 2);
  EXPECT_EQ(shared.width, 64);
  EXPECT_EQ(shared.router, kernels::RouterKind::kTopKThenSoftmax);

  const ModelDescription jamba = Parsed(Golden("jamba").dump());
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(std::holds_alternative<AttentionSpec>(BranchAt(jamba, i, 0).mixer), i % 4 == 2);
    EXPECT_EQ(std::holds_alternative<MoeSpec>(BranchAt(jamba, i, 1).mixer), i % 2 == 1);
  }
  EXPECT_EQ(std::get<Mamba1Spec>(BranchAt(jamba, 0, 0).mixer).inner_norm,
            Mamba1Spec::InnerNorm::kWeighted);
  json plain = Golden("jamba");
  plain["mamba_inner_layernorms"] = false;
  EXPECT_EQ(std::get<Mamba1Spec>(BranchAt(Parsed(plain.dump()), 0, 0).mixer).inner_norm,
            Mamba1Spec::InnerNorm::kNone);
  json one = Golden("jamba");
  one["num_experts"] = 1;
  EXPECT_TRUE(std::holds_alternative<GatedMlpSpec>(BranchAt(Parsed(one.dump()), 1, 1).mixer));

  const ModelDescription nemotron = Parsed(Golden("nemotron_h_moe").dump());
  const auto& routed = std::get<MoeSpec>(BranchAt(nemotron, 1, 0, 0).mixer);
  EXPECT_EQ(routed.router, kernels::RouterKind::kSigmoid);
  EXPECT_FALSE(routed.gated);
  EXPECT_EQ(std::get<MlpSpec>(BranchAt(nemotron, 1, 0, 1).mixer).width, 64);
}

TEST(ModelConfig, NemotronPatternIsAStringOrAList) {
  json config = Golden("nemotron_h");
  const ModelDescription listed = Parsed(config.dump());
  config.erase("layers_block_type");
  config["hybrid_override_pattern"] = "M-M*-M";
  config["num_hidden_layers"] = 6;
  const ModelDescription spelled = Parsed(config.dump());
  ASSERT_EQ(spelled.layers.size(), listed.layers.size());
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(BranchAt(spelled, i, 0).mixer.index(), BranchAt(listed, i, 0).mixer.index()) << i;
  }
  config["num_hidden_layers"] = 7;
  EXPECT_THAT(Refusal(config), HasSubstr("num_hidden_layers: is not the 6 layers"));
  config["hybrid_override_pattern"] = "M-X";
  EXPECT_THAT(Refusal(config), HasSubstr("hybrid_override_pattern: 'X' at 2"));
  config.erase("hybrid_override_pattern");
  EXPECT_THAT(Refusal(config), HasSubstr("layers_block_type: is missing"));
  config["layers_block_type"] = {"mamba", "conv"};
  EXPECT_THAT(Refusal(config), HasSubstr("layers_block_type: 'conv'"));
}

TEST(ModelConfig, AcceptsNemotronsOlderSpellings) {
  json config = Golden("nemotron_h");
  for (const auto& [key, older] :
       std::vector<std::pair<std::string, std::string>>{{"n_groups", "mamba_n_groups"},
                                                        {"conv_kernel", "mamba_d_conv"},
                                                        {"use_conv_bias", "mamba_conv_bias"},
                                                        {"time_step_limit", "mamba_dt_limit"},
                                                        {"head_dim", "attention_head_dim"}}) {
    config[older] = config[key];
    config.erase(key);
  }
  config["mamba_conv_bias"] = false;
  config["mamba_dt_limit"] = {0.5, 2};
  config["attention_head_dim"] = 8;
  const ModelDescription model = Parsed(config.dump());
  EXPECT_EQ(FirstMamba2(model).groups, 2);
  EXPECT_EQ(FirstMamba2(model).norm_groups, 2);
  EXPECT_FALSE(FirstMamba2(model).conv_bias);
  EXPECT_EQ(FirstMamba2(model).dt_lo, 0.5f);
  EXPECT_EQ(std::get<AttentionSpec>(BranchAt(model, 3, 0).mixer).head_dim, 8);
}

TEST(ModelConfig, RefusesRoutersExpertCountsAndActivationsItCannotRun) {
  struct Bad {
    const char *model, *key;
    json value;
    const char* message;
  };
  for (const Bad& bad : std::vector<Bad>{
           {"granitemoehybrid", "num_experts_per_tok", 5, "5 is more than num_local_experts = 4"},
           {"granitemoehybrid", "num_local_experts", -1, "num_local_experts"},
           {"granitemoehybrid", "intermediate_size", 0, "intermediate_size"},
           {"jamba", "num_experts", 0, "num_experts"},
           {"jamba", "num_experts_per_tok", 0, "num_experts_per_tok"},
           {"jamba", "num_experts_per_tok", 5, "5 is more than num_experts = 4"},
           {"jamba", "expert_layer_offset", 2, "2 is not below expert_layer_period = 2"},
           {"jamba", "attn_layer_offset", 4, "4 is not below attn_layer_period = 4"},
           {"jamba", "hidden_act", "gelu", "hidden_act: 'gelu'"},
           {"nemotron_h", "mlp_hidden_act", "silu", "mlp_hidden_act: 'silu'"},
           {"nemotron_h", "mamba_hidden_act", "gelu", "mamba_hidden_act: 'gelu'"},
           {"nemotron_h_moe", "scoring_func", "softmax", "scoring_func: 'softmax'"},
           {"nemotron_h_moe", "n_routed_experts", 1, "2 is more than n_routed_experts = 1"},
           {"nemotron_h_moe", "n_shared_experts", 2, "n_shared_experts"},
           {"nemotron_h_moe", "n_group", 3, "do not make 3 equal groups"},
           {"nemotron_h_moe", "n_group", 4, "equal groups of at least 2"},
           {"nemotron_h_moe", "topk_group", 2, "topk_group: 2 is more than n_group = 1"},
           {"nemotron_h_moe", "moe_latent_size", 0, "moe_latent_size"},
           {"nemotron_h_moe", "mlp_bias", true, "mlp_bias"}}) {
    json config = Golden(bad.model);
    config[bad.key] = bad.value;
    EXPECT_THAT(Refusal(config), HasSubstr(bad.message)) << bad.model;
  }
}

TEST(ModelConfig, RefusesSizesOutOfBounds) {
  for (const char* model : {"mamba", "mamba2", "granitemoehybrid_dense"}) {
    const json golden = Golden(model);
    for (const char* key :
         {"hidden_size", "vocab_size", "num_hidden_layers", "expand", "state_size", "conv_kernel",
          "num_heads", "head_dim", "n_groups", "time_step_rank", "mamba_expand", "mamba_n_heads",
          "mamba_d_head", "mamba_d_state", "mamba_d_conv", "mamba_n_groups", "num_attention_heads",
          "num_key_value_heads", "shared_intermediate_size"}) {
      const bool unused = !golden.contains(key) ||
                          (std::string(key) == "time_step_rank" && std::string(model) == "mamba2");
      if (unused) continue;
      for (const json& bad : {json(0), json(-1), json(1.5), json("x"), json(true), json(1ll << 40),
                              json(18446744073709551615ull), json::array({1})}) {
        json config = golden;
        config[key] = bad;
        EXPECT_THAT(Refusal(config), HasSubstr(key)) << bad;
      }
    }
  }
}

TEST(ModelConfig, RefusesHeadsThatDoNotFit) {
  json config = Golden("mamba2");
  config["num_heads"] = 7;
  EXPECT_THAT(Refusal(config), HasSubstr("expand * hidden_size"));
  config = Golden("mamba2");
  config["n_groups"] = 3;
  EXPECT_THAT(Refusal(config), HasSubstr("n_groups"));
  config = Golden("granitemoehybrid_dense");
  config["num_key_value_heads"] = 3;
  EXPECT_THAT(Refusal(config), HasSubstr("num_key_value_heads"));
  config["num_attention_heads"] = 5;
  EXPECT_THAT(Refusal(config), HasSubstr("num_attention_heads"));
}

TEST(ModelConfig, ReadsStopTokens) {
  json config = Golden("mamba");
  EXPECT_THAT(Parsed(config.dump()).eos_token_ids, ElementsAre(1));
  EXPECT_EQ(Parsed(config.dump()).bos_token_id, 0);
  config["eos_token_id"] = {5, 6};
  EXPECT_THAT(Parsed(config.dump()).eos_token_ids, ElementsAre(5, 6));
  EXPECT_THAT(Parsed(config.dump(), R"({"eos_token_id": [7]})").eos_token_ids, ElementsAre(7));
  EXPECT_THAT(Parsed(config.dump(), R"({"bos_token_id": 7})").eos_token_ids, ElementsAre(5, 6));
  config["eos_token_id"] = nullptr;
  EXPECT_THAT(Parsed(config.dump()).eos_token_ids, IsEmpty());
  for (const json& bad : {json(257), json(-1), json("x"), json::array({1, 300})}) {
    config["eos_token_id"] = bad;
    EXPECT_THAT(Refusal(config), HasSubstr("eos_token_id"));
  }
}

}  // namespace
}  // namespace anabranch
