// The engine's promises on real architectures: the golden models, in float32 and bfloat16.
#include <random>

#include "gtest/gtest.h"
#include "tests/runtime/engine_harness.h"
#include "tests/runtime/golden_models.h"

namespace anabranch {
namespace {

using testing::Logits;
using testing::OutcomePtr;
using testing::Read;
using testing::StartGenerate;
using testing::StartRead;

class EngineModelTest : public ::testing::TestWithParam<testing::GoldenCase> {
 protected:
  void SetUp() override {
    LoadOptions options;
    options.dtype = GetParam().dtype;
    options.num_threads = 1;  // results do not depend on it, and tests share the machine
    auto loaded = Model::Load(testing::GoldenModelDir(GetParam().model), options);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *std::move(loaded);
    engine_ = MakeEngine({});
  }

  // Engines may share the model here, because only one of them steps at a time.
  std::unique_ptr<Engine> MakeEngine(EngineOptions options) {
    options.slots.num_slots = 16;
    options.slots.num_kv_pages = 64;
    options.slots.poison_released = true;
    auto engine = Engine::Create(model_, options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }
  std::vector<int32_t> Tokens(int64_t count, uint32_t seed) const {
    std::mt19937 random(seed);
    std::vector<int32_t> tokens(count);
    for (int32_t& token : tokens) token = random() % model_->description().vocab;
    return tokens;
  }
  SequencePtr SequenceOf(Engine& engine, const std::vector<int32_t>& tokens) {
    SequencePtr sequence = *engine.NewSequence();
    EXPECT_TRUE(Read(engine, sequence, tokens).ok());
    return sequence;
  }

  std::shared_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(EngineModelTest, CaptureAndRestoreContinueBitForBit) {
  const std::vector<int32_t> tokens = Tokens(330, 1);
  const std::vector<float> expected = Logits(*engine_, SequenceOf(*engine_, tokens));
  std::mt19937 random(5);
  for (int round = 0; round < 20; ++round) {
    const int64_t cut = 1 + random() % (tokens.size() - 1);
    const std::vector<int32_t> head(tokens.begin(), tokens.begin() + cut);
    auto image = engine_->Capture(SequenceOf(*engine_, head));
    ASSERT_TRUE(image.ok()) << image.status();
    auto header = ParseStateHeader(SerializeStateHeader(image->header));
    ASSERT_TRUE(header.ok()) << header.status();
    image->header = *header;
    auto restored = engine_->Restore(*image, head);
    ASSERT_TRUE(restored.ok()) << restored.status();
    ASSERT_TRUE(Read(*engine_, *restored, {tokens.begin() + cut, tokens.end()}).ok());
    EXPECT_EQ(Logits(*engine_, *restored), expected) << "cut at " << cut;
  }
}

TEST_P(EngineModelTest, InterleavedSequencesEqualEachAlone) {
  EngineOptions options;
  options.max_prefill_rows = 48;
  options.max_prefill_rows_decoding = 24;
  auto busy = MakeEngine(options);
  std::vector<SequencePtr> sequences;
  std::vector<OutcomePtr> outcomes;
  for (int i = 0; i < 6; ++i) {
    sequences.push_back(*busy->NewSequence());
    outcomes.push_back(StartRead(*busy, sequences[i], Tokens(5 + 31 * i, i)));
  }
  for (int i = 0; i < 6; ++i) {
    ASSERT_TRUE(outcomes[i]->Wait().ok()) << outcomes[i]->status;
    outcomes[i] = StartGenerate(*busy, sequences[i], 6 + i);
  }
  for (auto& outcome : outcomes) ASSERT_TRUE(outcome->Wait().ok()) << outcome->status;
  for (int i = 0; i < 6; ++i) {
    const std::vector<float> alone =
        Logits(*engine_, SequenceOf(*engine_, busy->Tokens(sequences[i])));
    EXPECT_EQ(Logits(*busy, sequences[i]), alone) << i;
  }
}

TEST_P(EngineModelTest, ForksDivergeAndTheParentStays) {
  const std::vector<int32_t> prompt = Tokens(270, 3);
  const SequencePtr parent = SequenceOf(*engine_, prompt);
  const std::vector<float> before = Logits(*engine_, parent);
  for (int32_t i = 0; i < 8; ++i) {
    const SequencePtr fork = *engine_->Fork(parent);
    ASSERT_TRUE(Read(*engine_, fork, {i, i + 1}).ok());
    std::vector<int32_t> all = prompt;
    all.insert(all.end(), {i, i + 1});
    EXPECT_EQ(Logits(*engine_, fork), Logits(*engine_, SequenceOf(*engine_, all)));
  }
  EXPECT_EQ(Logits(*engine_, parent), before);
  ASSERT_TRUE(Read(*engine_, parent, {9}).ok());
  std::vector<int32_t> all = prompt;
  all.push_back(9);
  EXPECT_EQ(Logits(*engine_, parent), Logits(*engine_, SequenceOf(*engine_, all)));
}

INSTANTIATE_TEST_SUITE_P(Golden, EngineModelTest, ::testing::ValuesIn(testing::GoldenCases()),
                         [](const auto& info) { return info.param.name(); });

}  // namespace
}  // namespace anabranch
