#include "runtime/random_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/model_config.h"
#include "runtime/single_sequence.h"
#include "runtime/weights.h"
#include "tests/bench/shapes.h"

namespace anabranch {
namespace {

std::string TinyConfig(absl::string_view name) { return bench::FindShape(name)->config; }

LoadOptions OneThread(kernels::DType dtype) {
  LoadOptions options;
  options.dtype = dtype;
  options.num_threads = 1;
  return options;
}

TEST(RandomModel, StaysFiniteOverThousandsOfTokens) {
  for (const auto dtype : {kernels::DType::kFloat32, kernels::DType::kBFloat16}) {
    const auto model = MakeRandomModel(TinyConfig("tiny"), OneThread(dtype));
    ASSERT_TRUE(model.ok()) << model.status();
    auto sequence = SingleSequence::Create(**model, 4000);
    ASSERT_TRUE(sequence.ok());
    std::vector<int32_t> tokens(1000);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 512);
    for (int part = 0; part < 4; ++part) {
      const auto logits = sequence->Read(tokens);
      ASSERT_TRUE(logits.ok()) << logits.status();
      const auto [least, most] = std::minmax_element(logits->begin(), logits->end());
      EXPECT_TRUE(std::all_of(logits->begin(), logits->end(),
                              [](float v) { return std::isfinite(v) && std::abs(v) < 100; }));
      EXPECT_GT(*most - *least, 0.1f) << "nothing reaches the logits";
    }
  }
}

TEST(RandomModel, IsTheSameEveryTimeAndNamedByItsConfig) {
  const auto one = MakeRandomModel(TinyConfig("tiny"), OneThread(kernels::DType::kFloat32));
  const auto two = MakeRandomModel(TinyConfig("tiny"), OneThread(kernels::DType::kFloat32));
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ((*one)->fingerprint(), (*two)->fingerprint());
  auto first = SingleSequence::Create(**one, 8), second = SingleSequence::Create(**two, 8);
  EXPECT_EQ(*first->Read({1, 2, 3}), *second->Read({1, 2, 3}));
  std::string other = TinyConfig("tiny");
  other.replace(other.find("512"), 3, "513");
  const auto three = MakeRandomModel(other, OneThread(kernels::DType::kFloat32));
  ASSERT_TRUE(three.ok()) << three.status();
  EXPECT_NE((*three)->fingerprint(), (*one)->fingerprint());
}

TEST(RandomModel, ABadConfigIsRefused) {
  const auto model = MakeRandomModel(R"({"model_type": "gpt2"})", {});
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
}

// Parameters in billions, as published.
TEST(Shapes, HaveTheirPublishedSizes) {
  const auto parameters = [](absl::string_view shape) {
    const auto description = ParseModelConfig(TinyConfig(shape), "");
    EXPECT_TRUE(description.ok()) << description.status();
    double sum = 0;
    for (const ExpectedTensor& tensor : ExpectedTensors(*description)) {
      double elements = 1;
      for (const int64_t dim : tensor.shape) elements *= static_cast<double>(dim);
      sum += elements;
    }
    return sum / 1e9;
  };
  EXPECT_NEAR(parameters("mamba2-2.7b"), 2.70, 0.01);
  EXPECT_NEAR(parameters("mamba-2.8b"), 2.77, 0.01);
  EXPECT_NEAR(parameters("mamba2-130m"), 0.129, 0.001);
  EXPECT_NEAR(parameters("granite4-h-micro"), 3.19, 0.02);
  EXPECT_NEAR(parameters("nemotron-h-8b"), 8.1, 0.1);
}

}  // namespace
}  // namespace anabranch
