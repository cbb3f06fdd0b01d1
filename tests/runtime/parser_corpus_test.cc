// The parsers of model folders over good files and small damage to them, on every build and not
// only under the fuzzer: every prefix, bytes changed, slices repeated or left out. Whatever comes
// in, they answer with a value that keeps its promises or with an error.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>

#include "runtime/model_config.h"
#include "runtime/safetensors.h"
#include "tests/runtime/golden_models.h"
#include "tests/runtime/model_files.h"

namespace anabranch {
namespace {

// Calls `parse` with about a thousand damaged copies of `good`; returns how many it accepted.
int CountAccepted(const std::string& good, const std::function<bool(const std::string&)>& parse) {
  int accepted = 0;
  for (size_t size = 0; size < good.size(); size += 1 + size / 50) {
    accepted += parse(good.substr(0, size));
  }
  std::mt19937 random(1);
  for (int i = 0; i < 800; ++i) {
    std::string bad = good;
    const size_t at = random() % bad.size();
    const size_t count = 1 + random() % 20;
    switch (i % 4) {
      case 0:
        bad[at] = static_cast<char>(random());
        break;
      case 1:
        bad.erase(at, count);
        break;
      case 2:
        bad.insert(at, bad.substr(at, count));
        break;
      default:
        bad[at] = "0-9\"{}[],:e"[random() % 12];
    }
    accepted += parse(bad);
  }
  return accepted;
}

TEST(ParserCorpus, DamagedSafetensorsAreRefusedOrStayInsideTheFile) {
  const std::string good =
      testing::WithHeader(R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
                          R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}})",
                          std::string(22, 'x'));
  const auto parse = [](const std::string& bytes) {
    const auto file =
        absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    const auto tensors = ParseSafetensors(file);
    if (!tensors.ok()) return false;
    for (const auto& [name, tensor] : *tensors) {
      EXPECT_GE(tensor.bytes.begin(), file.begin());
      EXPECT_LE(tensor.bytes.end(), file.end());
    }
    return true;
  };
  ASSERT_TRUE(parse(good));
  EXPECT_LT(CountAccepted(good, parse), 300);  // changes of names and of data are fine
}

TEST(ParserCorpus, DamagedConfigsAreRefusedOrStayInBounds) {
  for (const std::string& name : testing::GoldenModels()) {
    const std::string good = testing::ReadWholeFile(testing::GoldenModelDir(name) + "/config.json");
    const auto parse = [](const std::string& text) {
      const auto model = ParseModelConfig(text, "");
      if (!model.ok()) {
        EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
        return false;
      }
      EXPECT_GT(model->hidden, 0);
      EXPECT_LE(model->hidden, kMaxHidden);
      EXPECT_LE(model->layers.size(), static_cast<size_t>(kMaxLayers));
      for (int32_t id : model->eos_token_ids) EXPECT_TRUE(id >= 0 && id < model->vocab);
      return true;
    };
    ASSERT_TRUE(parse(good));
    EXPECT_LT(CountAccepted(good, parse), 700);  // half of a config are keys that are not used
  }
}

}  // namespace
}  // namespace anabranch
