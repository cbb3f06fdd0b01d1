// Models whose sequences leave recurrent tensors as they are in most steps of a generation: what
// they compute, where tokens may be pending, and that nobody else sees it.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "gtest/gtest.h"
#include "runtime/single_sequence.h"
#include "runtime/state_table.h"
#include "runtime/state_tensors.h"
#include "tests/runtime/engine_harness.h"
#include "tests/runtime/golden_models.h"

namespace anabranch {
namespace {

using testing::GoldenModelDir;
using testing::Logits;
using testing::Read;
using testing::StartGenerate;

using Ids = std::vector<int32_t>;

struct Case {
  std::string model;
  kernels::DType state_dtype;
  int every = 16;
  friend void PrintTo(const Case& one, std::ostream* out) { *out << one.model; }
};

std::shared_ptr<Model> Load(const Case& one, int every) {
  LoadOptions options;
  options.state_dtype = one.state_dtype;
  options.state_write_every = every;
  options.num_threads = 1;
  auto model = Model::Load(GoldenModelDir(one.model), options);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

Ids Tokens(const Model& model, int64_t count, uint32_t seed) {
  return testing::RandomTokens(count, seed, model.description().vocab);
}

// All recurrent tensors of an exact image.
std::vector<float> RecurrentOf(const StateImage& image) {
  std::vector<float> out;
  for (const StateSegment& segment : image.header.segments) {
    if (segment.kind != StateKind::kRecurrent || segment.layer == kLastLogitsLayer) continue;
    const std::vector<float> values = ReadFloats(image, segment);
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

class StateWriteEvery : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    model_ = Load(GetParam(), every());
    EngineOptions options;
    options.slots.poison_released = true;
    engine_ = *Engine::Create(model_, options);
  }
  static int every() { return GetParam().every; }
  SequencePtr SequenceOf(const Ids& tokens) {
    SequencePtr sequence = *engine_->NewSequence();
    EXPECT_TRUE(Read(*engine_, sequence, tokens).ok());
    return sequence;
  }
  StateImage ImageOf(const SequencePtr& sequence) {
    auto image = engine_->Capture(sequence);
    EXPECT_TRUE(image.ok()) << image.status();
    return *std::move(image);
  }
  SequencePtr Restored(const StateImage& image, Ids tokens) {
    tokens.resize(image.header.token_count);
    auto restored = engine_->Restore(image, tokens);
    EXPECT_TRUE(restored.ok()) << restored.status();
    return *std::move(restored);
  }
  // With the images of a grid, if `checkpoint_every` > 0.
  std::vector<StateImage> Generate(const SequencePtr& sequence, int64_t count,
                                   int64_t checkpoint_every = 0) {
    std::vector<StateImage> images;
    GenerateWork work;
    work.sequence = sequence;
    work.max_tokens = count;
    work.checkpoint_every = checkpoint_every;
    work.on_checkpoint = [&](int64_t, absl::StatusOr<StateImage> image) {
      ASSERT_TRUE(image.ok()) << image.status();
      images.push_back(*std::move(image));
    };
    EXPECT_TRUE(StartGenerate(*engine_, std::move(work))->Wait().ok());
    return images;
  }
  void ExpectSame(const SequencePtr& a, const SequencePtr& b) {
    EXPECT_EQ(engine_->Tokens(a), engine_->Tokens(b));
    EXPECT_EQ(Logits(*engine_, a), Logits(*engine_, b));
    const StateImage left = ImageOf(a), right = ImageOf(b);
    EXPECT_EQ(left.payload, right.payload);
    EXPECT_EQ(left.kv_blocks, right.kv_blocks);
  }

  std::shared_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
};

TEST_P(StateWriteEvery, StatesLookAsEver) {
  const auto plain = Load(GetParam(), 1);
  const StateLayout &is = model_->state_layout(), &was = plain->state_layout();
  EXPECT_EQ(is.slot_bytes(), was.slot_bytes());
  EXPECT_EQ(is.entries.size(), was.entries.size());
  EXPECT_EQ(is.pending_room, every() - 1);
  EXPECT_GT(is.pending_bytes(), 0u);
  EXPECT_EQ(was.pending_room, 0);
  EXPECT_EQ(was.pending_bytes(), 0u);
  // Bits depend on steps, which those of a CPU otherwise do not.
  EXPECT_EQ(model_->numerics_profile(),
            absl::StrCat(plain->numerics_profile(), "-written-every-", every()));
  LoadOptions options;
  options.state_write_every = kMostStateWriteEvery + 1;
  EXPECT_EQ(Model::Load(GoldenModelDir(GetParam().model), options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

// Two sequences at different places between two writes, token by token beside a plain model.
TEST_P(StateWriteEvery, LogitsAreThoseOfPlainSteps) {
  constexpr int64_t kHead = 5, kSteps = 40;
  const auto plain = Load({GetParam().model, kernels::DType::kFloat32}, 1);
  SlotPool::Options options;
  options.num_slots = 2;
  options.num_kv_pages = 4;
  options.poison_released = true;
  const auto pool = *SlotPool::Create(model_->state_layout(), options, model_->device());
  std::vector<SlotRef> refs = {*pool->Acquire(), *pool->Acquire()};
  std::vector<SingleSequence> references;
  const Ids tokens[] = {Tokens(*model_, kHead + kSteps, 1), Tokens(*model_, kHead + kSteps, 2)};
  for (int i = 0; i < 2; ++i) references.push_back(*SingleSequence::Create(*plain, 256));
  const int64_t vocab = model_->description().vocab;
  double error = 0, size = 0;
  const auto step = [&](const std::vector<int>& which, bool defers) {
    StepBatch batch;
    Ids ids, starts = {0}, slots, pages, page_start = {0}, rows, before, after;
    std::vector<int64_t> positions;
    std::vector<float> want;
    for (int i : which) {
      SlotRef& ref = refs[i];
      ASSERT_TRUE(pool->PrepareWrite(ref, 1).ok());
      ids.push_back(tokens[i][ref.position]);
      rows.push_back(starts.back());
      starts.push_back(starts.back() + 1);
      slots.push_back(ref.slot);
      positions.push_back(ref.position);
      pages.insert(pages.end(), ref.pages.begin(), ref.pages.end());
      page_start.push_back(static_cast<int32_t>(pages.size()));
      before.push_back(ref.pending);
      ref.pending = !defers || (ref.position + 1) % every() == 0 ? 0 : ref.pending + 1;
      after.push_back(ref.pending);
      ++ref.position;
      const auto logits = references[i].Read(absl::MakeSpan(&ids.back(), 1));
      ASSERT_TRUE(logits.ok()) << logits.status();
      want.insert(want.end(), logits->begin(), logits->end());
    }
    batch.tokens = ids, batch.row_start = starts, batch.slots = slots, batch.positions = positions;
    if (defers) batch.pending_before = before, batch.pending_after = after;
    if (model_->state_layout().has_kv()) batch.pages = pages, batch.page_start = page_start;
    batch.logit_rows = rows;
    std::vector<float> logits(rows.size() * vocab);
    const absl::Status status = model_->Forward(batch, pool->arrays(), absl::MakeSpan(logits));
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < logits.size(); ++i) {
      error += std::pow(double{logits[i]} - want[i], 2);
      size += std::pow(double{want[i]}, 2);
    }
  };
  for (int64_t t = 0; t < kHead; ++t) step({1}, false);
  for (int64_t t = 0; t < kSteps; ++t) step(t < kSteps - kHead ? Ids{1, 0} : Ids{0}, true);
  const double limit = GetParam().state_dtype == kernels::DType::kFloat32 ? 1e-4 : 0.05;
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / size), limit);
  for (SlotRef& ref : refs) pool->Release(ref);
}

// What was pending is in the state, wherever a work ends.
TEST_P(StateWriteEvery, AnIdleSequenceHasAWholeState) {
  const bool full = GetParam().state_dtype == kernels::DType::kFloat32;
  const auto plain = *Engine::Create(Load({GetParam().model, kernels::DType::kFloat32}, 1), {});
  const SequencePtr sequence = SequenceOf(Tokens(*model_, 21, 5));
  for (const int64_t count : {1, 9, 1, 20, 16}) {
    Generate(sequence, count);
    const SequencePtr reference = *plain->NewSequence();
    ASSERT_TRUE(Read(*plain, reference, engine_->Tokens(sequence)).ok());
    const StateImage whole = *plain->Capture(reference);
    const std::vector<float> got = RecurrentOf(ImageOf(sequence)), want = RecurrentOf(whole);
    ASSERT_EQ(got.size(), want.size());
    double error = 0, size = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += std::pow(double{got[i]} - want[i], 2);
      size += std::pow(double{want[i]}, 2);
    }
    EXPECT_LT(std::sqrt(error / size), full ? 1e-4 : 0.03) << "after " << count << " more tokens";
  }
}

TEST_P(StateWriteEvery, ARestoredSequenceGoesOnAsTheOneThatStayed) {
  const SequencePtr stays = SequenceOf(Tokens(*model_, 70, 1));
  Generate(stays, 15);
  const StateImage image = ImageOf(stays);
  const SequencePtr restored = Restored(image, engine_->Tokens(stays));
  Generate(stays, 25);
  Generate(restored, 25);
  ExpectSame(stays, restored);
  EXPECT_EQ(ImageOf(restored).header.token_count, 110);
}

TEST_P(StateWriteEvery, CapturesOnTheGridOfWritesChangeNothing) {
  const Ids prompt = Tokens(*model_, 21, 2);
  const SequencePtr plain = SequenceOf(prompt), captured = SequenceOf(prompt);
  Generate(plain, 60);
  const std::vector<StateImage> images = Generate(captured, 60, 2 * every());
  ASSERT_EQ(images.size(), every() == 16 ? 2u : 4u);  // after 32 and 64, or 28 to 70 tokens
  ExpectSame(plain, captured);
  for (const StateImage& image : images) {
    const SequencePtr restored = Restored(image, engine_->Tokens(plain));
    Generate(restored, 81 - image.header.token_count);
    ExpectSame(plain, restored);
  }
}

TEST_P(StateWriteEvery, WhatIsCapturedElsewhereGoesOnAsItsSequenceDid) {
  const SequencePtr sequence = SequenceOf(Tokens(*model_, 21, 3));
  const std::vector<StateImage> images = Generate(sequence, 60, 10);
  ASSERT_EQ(images.size(), 6u);  // 30 to 80
  for (const StateImage& image : images) {
    const SequencePtr restored = Restored(image, engine_->Tokens(sequence));
    Generate(restored, 81 - image.header.token_count, 10);
    ExpectSame(sequence, restored);
  }
}

TEST_P(StateWriteEvery, ForksGoOnFromTheSameState) {
  const SequencePtr parent = SequenceOf(Tokens(*model_, 30, 4));
  Generate(parent, 7);
  const StateImage before = ImageOf(parent);
  const auto child = engine_->Fork(parent);
  ASSERT_TRUE(child.ok()) << child.status();
  Generate(*child, 20);
  EXPECT_EQ(ImageOf(parent).payload, before.payload);
  Generate(parent, 20);
  ExpectSame(parent, *child);
  // A read and a step of another kind go on from there, too.
  ASSERT_TRUE(Read(*engine_, parent, {1, 2, 3}).ok());
  ASSERT_TRUE(Read(*engine_, *child, {1, 2, 3}).ok());
  ExpectSame(parent, *child);
}

TEST_P(StateWriteEvery, WhatElseIsInAStepChangesNothing) {
  std::vector<SequencePtr> together;
  absl::BlockingCounter left(3);
  for (uint32_t i = 0; i < 3; ++i) together.push_back(SequenceOf(Tokens(*model_, 20 + 9 * i, i)));
  for (const SequencePtr& sequence : together) {
    GenerateWork work;
    work.sequence = sequence;
    work.max_tokens = 40;
    work.on_done = [&](absl::Status status, const WorkStats&, FinishReason) {
      EXPECT_TRUE(status.ok()) << status;
      left.DecrementCount();
    };
    ASSERT_TRUE(engine_->Submit(std::move(work)).ok());
  }
  // A read beside them, also of single tokens.
  ASSERT_TRUE(Read(*engine_, *engine_->NewSequence(), Tokens(*model_, 50, 9)).ok());
  ASSERT_TRUE(Read(*engine_, *engine_->NewSequence(), {1}).ok());
  left.Wait();
  for (uint32_t i = 0; i < 3; ++i) {
    const SequencePtr alone = SequenceOf(Tokens(*model_, 20 + 9 * i, i));
    Generate(alone, 40);
    ExpectSame(alone, together[i]);
  }
}

TEST_P(StateWriteEvery, RefusesWhatCannotBeDeferred) {
  SlotPool::Options options;
  options.num_slots = 1;
  options.num_kv_pages = 1;
  const auto pool = *SlotPool::Create(model_->state_layout(), options, model_->device());
  SlotRef ref = *pool->Acquire();
  ASSERT_TRUE(pool->PrepareWrite(ref, 2).ok());
  const auto run = [&](int32_t rows, int32_t before, int32_t after) {
    const Ids tokens(rows, 1), starts = {0, rows}, page_start = {0, 1}, last = {rows - 1};
    const int64_t position = 0;
    StepBatch batch;
    batch.tokens = tokens, batch.row_start = starts, batch.logit_rows = last;
    batch.slots = absl::MakeSpan(&ref.slot, 1), batch.positions = absl::MakeSpan(&position, 1);
    if (model_->state_layout().has_kv()) batch.pages = ref.pages, batch.page_start = page_start;
    batch.pending_before = absl::MakeSpan(&before, 1);
    batch.pending_after = absl::MakeSpan(&after, 1);
    std::vector<float> logits(model_->description().vocab);
    if (rows > 0) return model_->Forward(batch, pool->arrays(), absl::MakeSpan(logits));
    const Ids none = {0, 0};
    batch.row_start = none;
    return model_->Fold(batch, pool->arrays());
  };
  EXPECT_TRUE(run(1, 0, 1).ok());
  EXPECT_TRUE(run(1, 1, 0).ok());
  EXPECT_TRUE(run(2, -1, 0).ok());
  EXPECT_TRUE(run(1, 0, 1).ok());
  EXPECT_TRUE(run(0, 1, 0).ok());
  const auto refused = [](const absl::Status& status) {
    return status.code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(run(2, 0, 2))) << "more than a row";
  EXPECT_TRUE(refused(run(1, 1, 3)));
  EXPECT_TRUE(refused(run(1, every() - 1, every()))) << "no room";
  EXPECT_TRUE(refused(run(1, every(), 0)));
  EXPECT_TRUE(refused(run(0, 2, 1))) << "would stay pending";
  pool->Release(ref);
}

INSTANTIATE_TEST_SUITE_P(Models, StateWriteEvery,
                         ::testing::Values(Case{"mamba2", kernels::DType::kFloat32},
                                           Case{"mamba2", kernels::DType::kBFloat16},
                                           Case{"mamba2", kernels::DType::kInt8},
                                           Case{"nemotron_h", kernels::DType::kFloat32},
                                           Case{"zamba2", kernels::DType::kBFloat16, 7}),
                         [](const auto& info) {
                           return absl::StrCat(info.param.model, "_",
                                               testing::NameOf(info.param.state_dtype));
                         });

TEST(StateWriteEveryTest, AModelWithoutMamba2DefersNothing) {
  const auto model = Load({"mamba", kernels::DType::kFloat32}, 16);
  EXPECT_EQ(model->state_layout().pending_room, 0);
  const auto engine = *Engine::Create(model, {});
  const SequencePtr sequence = *engine->NewSequence();
  ASSERT_TRUE(Read(*engine, sequence, {1, 2, 3}).ok());
  EXPECT_TRUE(StartGenerate(*engine, sequence, 20)->Wait().ok());
  EXPECT_TRUE(engine->Capture(sequence).ok());
}

}  // namespace
}  // namespace anabranch
