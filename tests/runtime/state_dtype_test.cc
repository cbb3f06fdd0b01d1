// Models whose recurrent states are bfloat16 or int8 between steps: fewer bytes, a profile of their
// own, and everything that is done with states.
#include <algorithm>

#include "gtest/gtest.h"
#include "runtime/random_model.h"
#include "runtime/state_algebra.h"
#include "runtime/state_diff.h"
#include "runtime/state_merge.h"
#include "runtime/state_stats.h"
#include "tests/runtime/engine_harness.h"
#include "tests/runtime/golden_models.h"

namespace anabranch {
namespace {

using testing::GoldenModelDir;
using testing::Logits;
using testing::Read;
using testing::StartGenerate;

using Ids = std::vector<int32_t>;

std::shared_ptr<Model> Load(const std::string& name, kernels::DType state_dtype) {
  LoadOptions options;
  options.state_dtype = state_dtype;
  options.num_threads = 1;
  auto model = Model::Load(GoldenModelDir(name), options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

Ids Tokens(const Model& model, int64_t count, uint32_t seed) {
  return testing::RandomTokens(count, seed, model.description().vocab);
}

struct Kept {
  std::string model;
  kernels::DType dtype;
  friend void PrintTo(const Kept& one, std::ostream* out) { *out << one.model; }
};

class StateDType : public ::testing::TestWithParam<Kept> {
 protected:
  void SetUp() override {
    model_ = Load(GetParam().model, GetParam().dtype);
    engine_ = *Engine::Create(model_, {});
  }
  SequencePtr SequenceOf(const Ids& tokens) {
    SequencePtr sequence = *engine_->NewSequence();
    EXPECT_TRUE(Read(*engine_, sequence, tokens).ok());
    return sequence;
  }

  static bool int8() { return GetParam().dtype == kernels::DType::kInt8; }

  std::shared_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(StateDType, TakesLessAndNamesItself) {
  const auto full = Load(GetParam().model, kernels::DType::kFloat32);
  EXPECT_EQ(model_->numerics_profile(),
            full->numerics_profile() + (int8() ? "-state-int8" : "-state-bfloat16"));
  EXPECT_NE(model_->fingerprint(), full->fingerprint());
  for (size_t e = 0; e < full->state_layout().entries.size(); ++e) {
    const StateEntry& was = full->state_layout().entries[e];
    const StateEntry& is = model_->state_layout().entries[e];
    const bool recurrent = is.kind == StateKind::kRecurrent;
    EXPECT_EQ(is.bytes(), recurrent ? was.bytes() * (int8() ? 9 : 16) / 32 : was.bytes());
  }
}

TEST_P(StateDType, ARestoredSequenceGoesOnBitForBit) {
  const Ids prompt = Tokens(*model_, 70, 1);
  const SequencePtr whole = SequenceOf(prompt);
  ASSERT_TRUE(StartGenerate(*engine_, whole, 40)->Wait().ok());

  SequencePtr part = SequenceOf(prompt);
  ASSERT_TRUE(StartGenerate(*engine_, part, 15)->Wait().ok());
  const auto image = engine_->Capture(part);
  ASSERT_TRUE(image.ok()) << image.status();
  auto restored = engine_->Restore(*image, engine_->Tokens(part));
  ASSERT_TRUE(restored.ok()) << restored.status();
  ASSERT_TRUE(StartGenerate(*engine_, *restored, 25)->Wait().ok());
  EXPECT_EQ(engine_->Tokens(*restored), engine_->Tokens(whole));
  EXPECT_EQ(Logits(*engine_, *restored), Logits(*engine_, whole));
  EXPECT_EQ(engine_->Capture(*restored)->payload, engine_->Capture(whole)->payload);

  const auto other = Engine::Create(Load(GetParam().model, kernels::DType::kFloat32), {});
  EXPECT_EQ((*other)->Restore(*image, engine_->Tokens(part)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// What float32 states give, within the rounding.
TEST_P(StateDType, LogitsStayNearThoseOfFloat32) {
  const auto full = *Engine::Create(Load(GetParam().model, kernels::DType::kFloat32), {});
  const Ids tokens = Tokens(*model_, 60, 2);
  const SequencePtr half = *engine_->NewSequence(), reference = *full->NewSequence();
  for (int32_t token : tokens) {  // a launch each: rounded as often as there are tokens
    ASSERT_TRUE(Read(*engine_, half, {token}).ok());
    ASSERT_TRUE(Read(*full, reference, {token}).ok());
  }
  const std::vector<float> a = Logits(*engine_, half), b = Logits(*full, reference);
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  EXPECT_GT(error, 0);
  // Random weights, 60 roundings of 2^-8 of an element or of its group's largest.
  EXPECT_LT(std::sqrt(error / size), int8() ? 0.3 : 0.15);
}

TEST_P(StateDType, StatesAreMergedForgottenAndCompared) {
  const Ids first = Tokens(*model_, 40, 3), second = Tokens(*model_, 30, 4);
  const SequencePtr a = SequenceOf(first), b = SequenceOf(second);
  const StateImage image_a = *engine_->Capture(a), image_b = *engine_->Capture(b);
  const StateLayout& layout = model_->state_layout();
  // Merging one state is that state.
  const auto alone = MergeStates(layout, {&image_a}, nullptr, {});
  ASSERT_TRUE(alone.ok()) << alone.status();
  const auto distances = DiffStates(layout, image_a, *alone);
  ASSERT_TRUE(distances.ok()) << distances.status();
  for (const TensorDistance& each : *distances) {
    if (each.kind != StateKind::kRecurrent) continue;
    EXPECT_LT(each.whole.relative_l2, int8() ? 0.01 : 1e-6) << each.layer;
  }
  const auto merged = MergeStates(layout, {&image_a, &image_b}, nullptr, {});
  ASSERT_TRUE(merged.ok()) << merged.status();
  Ids both = first;
  both.insert(both.end(), second.begin(), second.end());
  auto restored = engine_->Restore(*merged, both);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_TRUE(Read(*engine_, *restored, {1, 2}).ok());
  const auto aged = DecayState(layout, image_a, 0.5);
  ASSERT_TRUE(aged.ok()) << aged.status();
  EXPECT_TRUE(engine_->Restore(*aged, first).ok());
}

// What a state says of itself is of its numbers, not of its codes.
TEST_P(StateDType, StatisticsAreThoseOfFloat32) {
  const auto full = *Engine::Create(Load(GetParam().model, kernels::DType::kFloat32), {});
  const Ids tokens = Tokens(*model_, 40, 6);
  const SequencePtr reference = *full->NewSequence();
  ASSERT_TRUE(Read(*full, reference, tokens).ok());
  const auto got = ComputeStateStats(model_->state_layout(), *engine_->Capture(SequenceOf(tokens)));
  const auto want = ComputeStateStats(model_->state_layout(), *full->Capture(reference));
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].norms.size(), want[i].norms.size());
    EXPECT_EQ(got[i].nonfinite_count, 0);
    EXPECT_NEAR(got[i].max_abs, want[i].max_abs, 0.05 * want[i].max_abs);
    for (size_t n = 0; n < got[i].norms.size(); ++n) {
      EXPECT_NEAR(got[i].norms[n], want[i].norms[n], 0.05 * want[i].norms[n] + 1e-3);
    }
  }
}

// Scales are of 16 neighbours in a row.
TEST(StateDTypeTest, AModelWhoseRowsAreNoWholeGroupsIsRefusedInInt8) {
  LoadOptions options;
  options.state_dtype = kernels::DType::kInt8;
  options.num_threads = 1;
  const auto model = MakeRandomModel(
      R"({"model_type": "mamba2", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1,
          "num_heads": 4, "head_dim": 16, "state_size": 24, "n_groups": 1, "expand": 2,
          "conv_kernel": 4, "tie_word_embeddings": true})",
      options);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << model.status();
  EXPECT_NE(model.status().message().find("state_dim of 24"), std::string::npos) << model.status();
}

std::vector<Kept> Cases() {
  std::vector<Kept> cases;
  for (const char* model : {"mamba", "mamba2", "jamba", "zamba2", "falcon_h1"}) {
    for (kernels::DType dtype : {kernels::DType::kBFloat16, kernels::DType::kInt8}) {
      cases.push_back({model, dtype});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Models, StateDType, ::testing::ValuesIn(Cases()), [](const auto& info) {
  return info.param.model + "_" + testing::NameOf(info.param.dtype);
});

}  // namespace
}  // namespace anabranch
