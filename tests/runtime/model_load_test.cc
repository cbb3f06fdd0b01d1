// What a model folder may contain, and what is said about one that is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "runtime/model.h"
#include "runtime/single_sequence.h"
#include "tests/runtime/model_files.h"

namespace anabranch {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::ModelFolder;
using testing::RawModel;
using testing::RawTensor;
using testing::WriteFile;

constexpr char kInProj[] = "backbone.layers.1.mixer.in_proj.weight";

absl::Status LoadStatus(const ModelFolder& folder) {
  return Model::Load(folder.path(), {}).status();
}

std::vector<float> LogitsOf(const std::string& dir) {
  auto model = Model::Load(dir, {});
  EXPECT_TRUE(model.ok()) << model.status();
  if (!model.ok()) return {};
  auto sequence = SingleSequence::Create(**model, 8);
  return *sequence->Read({1, 2, 3, 4, 5});
}

std::string FingerprintOf(const std::string& dir, kernels::DType dtype = {}) {
  auto model = Model::Load(dir, {dtype});
  EXPECT_TRUE(model.ok()) << model.status();
  return model.ok() ? (*model)->fingerprint() : "";
}

TEST(ModelLoad, NamesAMissingTensorAndItsShape) {
  ModelFolder folder("mamba");
  folder.weights.tensors.erase(kInProj);
  folder.Save();
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(LoadStatus(folder).message()),
              AllOf(HasSubstr(kInProj), HasSubstr("[256,64]"), HasSubstr("missing")));
}

TEST(ModelLoad, NamesAMisshapenTensorAndBothShapes) {
  ModelFolder folder("mamba");
  folder.weights.tensors[kInProj].shape = {128, 128};
  folder.Save();
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(LoadStatus(folder).message()),
              AllOf(HasSubstr(kInProj), HasSubstr("[128,128]"), HasSubstr("[256,64]")));
}

TEST(ModelLoad, NamesATensorThatBelongsNowhere) {
  ModelFolder folder("granitemoehybrid_dense");
  folder.weights.tensors["model.layers.0.mamba.in_proj.bias"] = {"F32", {2}, std::string(8, '\0')};
  folder.Save();
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(LoadStatus(folder).message()),
              HasSubstr("model.layers.0.mamba.in_proj.bias"));
}

TEST(ModelLoad, IgnoresTensorsKnownToBeUnused) {
  ModelFolder folder("granitemoehybrid_dense");
  const std::vector<float> before = LogitsOf(folder.path());
  folder.weights.tensors["mtp.head.weight"] = {"F32", {1}, std::string(4, '\0')};
  folder.weights.tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = {
      "F32", {1}, std::string(4, '\0')};
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), before);
}

TEST(ModelLoad, RefusesWeightsThatAreNotFinite) {
  for (const char* name : {kInProj, "backbone.layers.0.mixer.A_log", "backbone.norm_f.weight",
                           "backbone.embeddings.weight", "backbone.layers.2.mixer.conv1d.bias"}) {
    for (float value : {std::nanf(""), INFINITY}) {
      ModelFolder folder("mamba");
      std::string& bytes = folder.weights.tensors[name].bytes;
      std::memcpy(bytes.data() + bytes.size() - sizeof(value), &value, sizeof(value));
      folder.Save();
      EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(std::string(LoadStatus(folder).message()), HasSubstr(name));
    }
  }
}

TEST(ModelLoad, RefusesIntegerWeights) {
  ModelFolder folder("mamba");
  folder.weights.tensors[kInProj].dtype = "I32";
  folder.Save();
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(LoadStatus(folder).message()), HasSubstr("I32"));
}

TEST(ModelLoad, SaysThatAFileIsTruncated) {
  ModelFolder folder("mamba2");
  const std::string bytes = folder.weights.ToBytes();
  for (size_t size : {bytes.size() - 1, bytes.size() / 2, size_t{100}, size_t{7}, size_t{0}}) {
    WriteFile(folder.File("model.safetensors"), bytes.substr(0, size));
    EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kDataLoss) << size;
    EXPECT_THAT(std::string(LoadStatus(folder).message()), HasSubstr("model.safetensors"));
  }
}

TEST(ModelLoad, SaysWhichFileIsMissing) {
  ModelFolder folder("mamba2");
  std::filesystem::remove(folder.File("model.safetensors"));
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(LoadStatus(folder).message()), HasSubstr("model.safetensors"));
  std::filesystem::remove(folder.File("config.json"));
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(LoadStatus(folder).message()), HasSubstr("config.json"));
}

// Splits the weights over two files and lists them in an index.
nlohmann::json WriteShards(const ModelFolder& folder) {
  RawModel shards[2];
  nlohmann::json map;
  int count = 0;
  for (const auto& [name, tensor] : folder.weights.tensors) {
    map[name] = "part-" + std::to_string(count % 2) + ".safetensors";
    shards[count++ % 2].tensors[name] = tensor;
  }
  for (int i : {0, 1}) {
    WriteFile(folder.File("part-" + std::to_string(i) + ".safetensors"), shards[i].ToBytes());
  }
  std::filesystem::remove(folder.File("model.safetensors"));
  return map;
}

void WriteIndex(const ModelFolder& folder, const nlohmann::json& map) {
  WriteFile(folder.File("model.safetensors.index.json"),
            nlohmann::json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
}

TEST(ModelLoad, ShardsGiveTheSameModelAsOneFile) {
  ModelFolder folder("mamba2");
  const std::vector<float> whole = LogitsOf(folder.path());
  WriteIndex(folder, WriteShards(folder));
  EXPECT_EQ(LogitsOf(folder.path()), whole);
}

TEST(ModelLoad, RefusesAnIndexThatDisagreesWithItsShards) {
  ModelFolder folder("mamba2");
  const nlohmann::json map = WriteShards(folder);
  nlohmann::json wrong = map;
  wrong["lm_head.weight"] = "part-0.safetensors";
  wrong["backbone.norm_f.weight"] = "part-0.safetensors";
  WriteIndex(folder, wrong);
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kDataLoss);
  wrong = map;
  wrong["extra"] = "part-1.safetensors";
  WriteIndex(folder, wrong);
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kDataLoss);
  wrong = map;
  wrong["lm_head.weight"] = "../part-0.safetensors";
  WriteIndex(folder, wrong);
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kInvalidArgument);
  wrong["lm_head.weight"] = "absent.safetensors";
  WriteIndex(folder, wrong);
  EXPECT_EQ(LoadStatus(folder).code(), absl::StatusCode::kNotFound);
}

TEST(ModelLoad, TiesTheHeadWhenConfiguredOrAbsent) {
  ModelFolder folder("mamba2");
  EXPECT_EQ(folder.config["tie_word_embeddings"], false);
  const std::vector<float> untied = LogitsOf(folder.path());
  folder.config["tie_word_embeddings"] = true;
  folder.Save();
  const std::vector<float> tied = LogitsOf(folder.path());
  EXPECT_NE(tied, untied);
  folder.config["tie_word_embeddings"] = false;
  folder.weights.tensors.erase("lm_head.weight");
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), tied);
}

TEST(ModelLoad, AcceptsTheEmbeddingsOlderName) {
  ModelFolder folder("mamba");
  const std::vector<float> before = LogitsOf(folder.path());
  auto node = folder.weights.tensors.extract("backbone.embeddings.weight");
  node.key() = "backbone.embedding.weight";
  folder.weights.tensors.insert(std::move(node));
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), before);
}

// Writers that drop duplicates keep a shared tensor under any one of its names.
TEST(ModelLoad, FindsASharedBlockUnderAnyOfItsLayers) {
  ModelFolder folder("zamba");
  const std::vector<float> before = LogitsOf(folder.path());
  const std::string first = "model.layers.2.shared_transf.",
                    other = "model.layers.5.shared_transf.";
  RawModel moved;
  for (const auto& [name, tensor] : folder.weights.tensors) {
    const bool shared = name.rfind(first, 0) == 0;
    moved.tensors[shared ? other + name.substr(first.size()) : name] = tensor;
  }
  const RawModel original = std::exchange(folder.weights, moved);
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), before);
  folder.weights.tensors.insert(original.tensors.begin(), original.tensors.end());
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), before) << "both names";
  const std::string lost = "self_attn.q_proj.weight";
  folder.weights.tensors.erase(first + lost);
  folder.weights.tensors.erase(other + lost);
  folder.Save();
  EXPECT_THAT(std::string(LoadStatus(folder).message()),
              AllOf(HasSubstr(first + lost), HasSubstr("[128,128]"), HasSubstr("missing")));
}

TEST(ModelLoad, LoadsASharedBlockOnceAndKeepsKeysForEachUse) {
  const auto zamba = Model::Load(ANABRANCH_GOLDEN_DIR "/models/zamba", {});
  ASSERT_TRUE(zamba.ok());
  // 2 uses of 4 heads of 32, keys and values.
  EXPECT_EQ((*zamba)->state_layout().kv_page_bytes(), 2 * 2 * 256 * 4 * 32 * 4);
  size_t values = 257 * 64;  // the head's copy of the embedding
  for (const auto& [name, tensor] : ModelFolder("zamba").weights.tensors) {
    values += tensor.bytes.size() / 4;
  }
  // Matrices are padded to 32 outputs; a second copy of the block would be 82,000 values more.
  EXPECT_LT((*zamba)->weight_bytes(), (values + 41'000) * 4);
}

TEST(ModelLoad, NamesAnAdapterOfAnotherRankAndBothShapes) {
  ModelFolder folder("zamba2");
  folder.config.erase("adapter_rank");  // 128, if the file does not say
  folder.Save();
  EXPECT_THAT(std::string(LoadStatus(folder).message()),
              AllOf(HasSubstr("gate_up_proj_adapter_list.0.0"), HasSubstr("[8,64]"),
                    HasSubstr("[128,64]")));
}

// An adapter of zeros adds nothing; one that is not zero changes the layer that uses it.
TEST(ModelLoad, AddsTheAdaptersOfSharedAttention) {
  ModelFolder folder("zamba2");
  const std::vector<float> before = LogitsOf(folder.path());
  folder.config["use_shared_attention_adapter"] = true;
  const auto block = [](int j) {
    return "model.layers." + std::to_string(2 + 2 * j) + ".shared_transformer.self_attn.";
  };
  for (int j : {0, 1}) {
    for (const char* projection : {"q", "k", "v"}) {
      const std::string list = block(j) + "linear_" + projection + "_adapter_list.";
      const std::string adapter = list + std::to_string(j) + ".";
      folder.weights.tensors[adapter + "0.weight"] = {"F32", {8, 128}, std::string(4096, '\x3d')};
      folder.weights.tensors[adapter + "1.weight"] = {"F32", {128, 8}, std::string(4096, '\0')};
    }
  }
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), before);
  for (const char* projection : {"q", "k", "v"}) {
    const std::string up = block(1) + "linear_" + projection + "_adapter_list.1.1.weight";
    std::string& bytes = folder.weights.tensors[up].bytes;
    bytes.assign(bytes.size(), '\x3d');
    folder.Save();
    EXPECT_NE(LogitsOf(folder.path()), before) << projection;
    bytes.assign(bytes.size(), '\0');
  }
}

// Stacks experts.<e>.<name>.weight, several names one below the other, into one tensor.
void StackExperts(RawModel& weights, const std::string& prefix,
                  const std::vector<std::string>& names, const std::string& stacked) {
  RawTensor all{"F32", {0, 0, 0}, ""};
  for (int64_t e = 0;; ++e) {
    const auto key = [&](const std::string& name) {
      return absl::StrCat(prefix, "experts.", e, ".", name, ".weight");
    };
    if (!weights.tensors.contains(key(names.front()))) break;
    all.shape = {e + 1, 0, 0};
    for (const std::string& name : names) {
      const RawTensor part = weights.tensors.at(key(name));
      weights.tensors.erase(key(name));
      all.bytes += part.bytes;
      all.shape[1] += part.shape[0];
      all.shape[2] = part.shape[1];
    }
  }
  weights.tensors[prefix + stacked] = all;
}

TEST(ModelLoad, TakesExpertsApartOrStacked) {
  ModelFolder jamba("jamba"), nemotron("nemotron_h_moe");
  const std::vector<float> jamba_logits = LogitsOf(jamba.path());
  const std::vector<float> nemotron_logits = LogitsOf(nemotron.path());
  for (int layer : {1, 3, 5, 7}) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".feed_forward.");
    StackExperts(jamba.weights, prefix, {"gate_proj", "up_proj"}, "experts.gate_up_proj");
    StackExperts(jamba.weights, prefix, {"down_proj"}, "experts.down_proj");
  }
  jamba.Save();
  EXPECT_EQ(LogitsOf(jamba.path()), jamba_logits);
  for (int layer : {1, 4}) {
    const std::string prefix = absl::StrCat("backbone.layers.", layer, ".mixer.");
    StackExperts(nemotron.weights, prefix, {"up_proj"}, "experts.up_proj");
    StackExperts(nemotron.weights, prefix, {"down_proj"}, "experts.down_proj");
  }
  nemotron.Save();
  EXPECT_EQ(LogitsOf(nemotron.path()), nemotron_logits);
}

TEST(ModelLoad, ExpertsBehindLatentProjectionsThatChangeNothingGiveTheSame) {
  ModelFolder folder("nemotron_h_moe");
  const std::vector<float> before = LogitsOf(folder.path());
  std::vector<float> identity(64 * 64, 0);
  for (int i = 0; i < 64; ++i) identity[i * 65] = 1;
  const std::string bytes(reinterpret_cast<const char*>(identity.data()), 64 * 64 * sizeof(float));
  for (const char* name : {"fc1_latent_proj", "fc2_latent_proj"}) {
    for (int layer : {1, 4}) {
      const std::string tensor =
          absl::StrCat("backbone.layers.", layer, ".mixer.", name, ".weight");
      folder.weights.tensors[tensor] = {"F32", {64, 64}, bytes};
    }
  }
  folder.config["moe_latent_size"] = 64;
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), before);
}

TEST(ModelLoad, AcceptsNemotronsOtherPrefixes) {
  ModelFolder folder("nemotron_h_moe");
  const std::vector<float> logits = LogitsOf(folder.path());
  std::map<std::string, RawTensor> renamed;
  for (auto& [name, tensor] : folder.weights.tensors) {
    renamed[absl::StrReplaceAll(name, {{"backbone.", "model."}})] = tensor;
  }
  folder.weights.tensors = renamed;
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), logits);
}

TEST(ModelLoad, NamesTheExpertsTensorThatIsMissingOrOneTooMany) {
  const std::string prefix = "model.layers.1.feed_forward.";
  ModelFolder folder("jamba");
  folder.weights.tensors.erase(prefix + "experts.2.up_proj.weight");
  folder.Save();
  EXPECT_THAT(std::string(LoadStatus(folder).message()),
              HasSubstr("tensor '" + prefix +
                        "experts.2.up_proj.weight' of shape [128,64] is "
                        "missing"));
  ModelFolder fewer("jamba");
  fewer.config["num_experts"] = 3;
  fewer.Save();
  EXPECT_THAT(std::string(LoadStatus(fewer).message()),
              HasSubstr("router.weight' has shape [4,64], expected [3,64]"));
  ModelFolder granite("granitemoehybrid");
  granite.weights.tensors.erase("model.layers.0.block_sparse_moe.input_linear.weight");
  granite.Save();
  EXPECT_THAT(std::string(LoadStatus(granite).message()),
              HasSubstr("block_sparse_moe.input_linear.weight' of shape [4,128,64] is missing"));
  ModelFolder unbiased("nemotron_h_moe");
  unbiased.weights.tensors.erase("backbone.layers.1.mixer.gate.e_score_correction_bias");
  unbiased.Save();
  EXPECT_THAT(std::string(LoadStatus(unbiased).message()),
              HasSubstr("gate.e_score_correction_bias' of shape [4] is missing"));
}

TEST(ModelLoad, WeightsInBFloat16FilesLoadExactly) {
  ModelFolder folder("mamba2");
  for (auto& [name, tensor] : folder.weights.tensors) {  // drop the low halves: exact bfloat16
    for (size_t i = 0; i < tensor.bytes.size(); i += 4) tensor.bytes[i] = tensor.bytes[i + 1] = 0;
  }
  folder.Save();
  const std::vector<float> wide = LogitsOf(folder.path());
  for (auto& [name, tensor] : folder.weights.tensors) {
    std::string halves;
    for (size_t i = 0; i < tensor.bytes.size(); i += 4) halves += tensor.bytes.substr(i + 2, 2);
    tensor = {"BF16", tensor.shape, halves};
  }
  folder.Save();
  EXPECT_EQ(LogitsOf(folder.path()), wide);
}

TEST(ModelFingerprint, CoversWhatShapesAStateAndNothingElse) {
  ModelFolder folder("mamba");
  const std::string original = FingerprintOf(folder.path());
  EXPECT_EQ(original.size(), 64);
  EXPECT_EQ(FingerprintOf(folder.path()), original);
  EXPECT_NE(FingerprintOf(folder.path(), kernels::DType::kBFloat16), original);

  WriteFile(folder.File("chat_format.json"), "{}");
  WriteFile(folder.File("generation_config.json"), "{\"eos_token_id\": 3}");
  EXPECT_EQ(FingerprintOf(folder.path()), original);

  WriteFile(folder.File("tokenizer.json"), "{}");
  EXPECT_NE(FingerprintOf(folder.path()), original);
  std::filesystem::remove(folder.File("tokenizer.json"));

  folder.config["pad_token_id"] = 7;
  folder.Save();
  const std::string other_config = FingerprintOf(folder.path());
  EXPECT_NE(other_config, original);
  folder.weights.tensors[kInProj].bytes[0] ^= 1;
  folder.Save();
  EXPECT_NE(FingerprintOf(folder.path()), other_config);
}

TEST(ModelDescriptionOfFolder, StateLayoutMatchesTheMixers) {
  const std::string golden = ANABRANCH_GOLDEN_DIR "/models/";
  auto mamba = Model::Load(golden + "mamba", {});
  ASSERT_TRUE(mamba.ok());
  EXPECT_FALSE((*mamba)->state_layout().has_kv());
  // 3 layers: window [3,128] and state [128,16] in float32, T [128] in float64.
  EXPECT_EQ((*mamba)->state_layout().slot_bytes(), 3 * (3 * 128 * 4 + 128 * 16 * 4 + 128 * 8));
  auto hybrid = Model::Load(golden + "granitemoehybrid_dense", {kernels::DType::kBFloat16});
  ASSERT_TRUE(hybrid.ok());
  // 3 Mamba-2 layers: window [3,160], state [8,16,16], T [8]; 1 attention layer of 2 heads of 16.
  EXPECT_EQ((*hybrid)->state_layout().slot_bytes(), 3 * (3 * 160 * 4 + 8 * 16 * 16 * 4 + 8 * 8));
  EXPECT_EQ((*hybrid)->state_layout().kv_page_bytes(), 2 * 256 * 2 * 16 * 2);
  EXPECT_EQ((*hybrid)->numerics_profile(), "cpu-bfloat16-wide");
}

}  // namespace
}  // namespace anabranch
