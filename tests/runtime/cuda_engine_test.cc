// The engine on a GPU: what it promises of states there. Steps of the same shape give the same
// bits, so what is restored and what was never interrupted are compared at the same number of rows.
// ANABRANCH_CUDA_SESSIONS: how many sessions are restored for each model (5).
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "absl/synchronization/blocking_counter.h"
#include "runtime/random_model.h"
#include "runtime/state_codec.h"
#include "tests/runtime/cuda_testing.h"
#include "tests/runtime/engine_harness.h"

namespace anabranch {
namespace {

using testing::CudaOptions;
using testing::GoldenCase;
using ::testing::HasSubstr;
using testing::Read;

constexpr int64_t kGenerated = 256;
constexpr int64_t kCut = 113;  // tokens before the interruption

using Ids = std::vector<int32_t>;

int Sessions() {
  const char* count = std::getenv("ANABRANCH_CUDA_SESSIONS");
  return count == nullptr ? 5 : std::max(1, std::atoi(count));
}

using CudaPacking = testing::CudaTest;

class CudaEngine : public testing::CudaTest, public ::testing::WithParamInterface<GoldenCase> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    LoadOptions options = CudaOptions(GetParam().dtype);
    options.state_dtype = GetParam().state_dtype;
    options.state_write_every = GetParam().state_write_every;
    auto model = Model::Load(testing::GoldenModelDir(GetParam().model), options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    engine_ = MakeEngine(2 * Sessions() + 4);
  }
  std::unique_ptr<Engine> MakeEngine(int slots) const {
    EngineOptions options;
    options.slots.num_slots = slots;
    options.slots.num_kv_pages = 4 * slots;
    options.slots.poison_released = true;
    options.max_decode_rows = slots;
    auto engine = Engine::Create(model_, options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  Ids Tokens(int64_t count, uint32_t seed) const {
    return testing::RandomTokens(count, seed, model_->description().vocab);
  }
  SequencePtr SequenceOf(const Ids& tokens) {
    auto sequence = engine_->NewSequence();
    EXPECT_TRUE(sequence.ok()) << sequence.status();
    const absl::Status read = Read(*engine_, *sequence, tokens);
    EXPECT_TRUE(read.ok()) << read;
    return *sequence;
  }
  StateImage ImageOf(const SequencePtr& sequence) {
    auto image = engine_->Capture(sequence);
    EXPECT_TRUE(image.ok()) << image.status();
    return *std::move(image);
  }

  // `count` tokens of each, all of them in every step: works that are submitted from a callback
  // have all arrived when the next step is planned.
  void GenerateTogether(const std::vector<SequencePtr>& sequences, int64_t count) {
    absl::BlockingCounter left(static_cast<int>(sequences.size()));
    ReadWork starter;
    starter.sequence = *engine_->NewSequence();
    starter.tokens = {1};
    starter.on_done = [&](absl::Status status, const WorkStats&) {
      EXPECT_TRUE(status.ok()) << status;
      for (const SequencePtr& sequence : sequences) {
        GenerateWork work;
        work.sequence = sequence;
        work.max_tokens = count;
        work.on_done = [&left](absl::Status done, const WorkStats&, FinishReason) {
          EXPECT_TRUE(done.ok()) << done;
          left.DecrementCount();
        };
        const absl::Status submitted = engine_->Submit(std::move(work));
        EXPECT_TRUE(submitted.ok()) << submitted;
        if (!submitted.ok()) left.DecrementCount();
      }
    };
    const absl::Status submitted = engine_->Submit(std::move(starter));
    ASSERT_TRUE(submitted.ok()) << submitted;
    left.Wait();
  }

  std::shared_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
};

bool SameImage(const StateImage& a, const StateImage& b) {
  return a.header.token_count == b.header.token_count && a.payload == b.payload &&
         a.kv_blocks == b.kv_blocks;
}

TEST_P(CudaEngine, RestoredSessionsGoOnBitForBit) {
  std::vector<SequencePtr> sequences;
  std::vector<Ids> prompts;
  for (int i = 0; i < Sessions(); ++i) prompts.push_back(Tokens(20 + 37 * i % 300, i));

  for (const Ids& prompt : prompts) sequences.push_back(SequenceOf(prompt));
  GenerateTogether(sequences, kGenerated);
  std::vector<StateImage> uninterrupted;
  std::vector<Ids> expected;
  for (const SequencePtr& sequence : sequences) {
    uninterrupted.push_back(ImageOf(sequence));
    expected.push_back(engine_->Tokens(sequence));
  }

  sequences.clear();
  for (const Ids& prompt : prompts) sequences.push_back(SequenceOf(prompt));
  GenerateTogether(sequences, kCut);
  for (SequencePtr& sequence : sequences) {
    StateImage image = ImageOf(sequence);
    const Ids tokens = engine_->Tokens(sequence);
    // As a library keeps it: only bytes survive.
    const auto header = ParseStateHeader(SerializeStateHeader(image.header));
    ASSERT_TRUE(header.ok()) << header.status();
    image.header = *header;
    sequence.reset();
    auto restored = engine_->Restore(image, tokens);
    ASSERT_TRUE(restored.ok()) << restored.status();
    sequence = *restored;
  }
  GenerateTogether(sequences, kGenerated - kCut);
  for (size_t i = 0; i < sequences.size(); ++i) {
    EXPECT_EQ(engine_->Tokens(sequences[i]), expected[i]) << "session " << i;
    EXPECT_TRUE(SameImage(ImageOf(sequences[i]), uninterrupted[i])) << "session " << i;
  }
}

// Tokens are drawn on the device, but for those that a generation of one token begins with: they
// come from the logits that the host keeps. All of them are the same.
TEST_P(CudaEngine, DrawsTheTokensThatTheHostWouldDraw) {
  for (const float temperature : {0.0f, 0.8f}) {
    SamplingParams sampling;
    sampling.temperature = temperature;
    sampling.seed = 11;
    const Ids prompt = Tokens(40, 9);
    const SequencePtr at_once = SequenceOf(prompt), one_by_one = SequenceOf(prompt);
    const auto reply = testing::StartGenerate(*engine_, at_once, 60, sampling);
    ASSERT_TRUE(reply->Wait().ok()) << reply->status;
    for (int i = 0; i < 60; ++i) {
      const auto logits = engine_->LastLogits(one_by_one);
      const SampledToken expected = SampleToken(logits, static_cast<int32_t>(logits.size()),
                                                sampling, {}, engine_->Position(one_by_one));
      const auto next = testing::StartGenerate(*engine_, one_by_one, 1, sampling);
      ASSERT_TRUE(next->Wait().ok()) << next->status;
      ASSERT_EQ(next->tokens, Ids{expected.token}) << "token " << i;
    }
    EXPECT_EQ(engine_->Tokens(at_once), engine_->Tokens(one_by_one));
    const auto a = engine_->LastLogits(at_once), b = engine_->LastLogits(one_by_one);
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  }
}

// Steps of a generation are records made near its beginning: what they look at must grow with it.
// In bfloat16 reading differs by rounding alone as much as a forgotten part of the context might.
TEST_P(CudaEngine, ALongGenerationIsWhatReadingItsTokensGives) {
  if (GetParam().dtype != kernels::DType::kFloat32) return;
  const SequencePtr generated = SequenceOf(Tokens(40, 12));
  const auto reply = testing::StartGenerate(*engine_, generated, 660, {});
  ASSERT_TRUE(reply->Wait().ok()) << reply->status;
  const SequencePtr read = SequenceOf(engine_->Tokens(generated));
  const auto want = engine_->LastLogits(read), got = engine_->LastLogits(generated);
  ASSERT_EQ(got.size(), want.size());
  double off = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    off += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    norm += double{want[i]} * want[i];
  }
  EXPECT_LE(std::sqrt(off / norm), 1e-3);
}

TEST_P(CudaEngine, ForksDoNotTouchEachOther) {
  const Ids common = Tokens(290, 1), left = Tokens(40, 2), right = Tokens(7, 3);
  const SequencePtr parent = SequenceOf(common);
  const StateImage before = ImageOf(parent);
  auto child = engine_->Fork(parent);
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(engine_->stats().slots.slots_used, 1) << "a fork shares its parent's slot";
  ASSERT_TRUE(Read(*engine_, *child, left).ok());
  EXPECT_EQ(engine_->stats().slots.slots_used, 2);
  EXPECT_TRUE(SameImage(ImageOf(parent), before)) << "the child wrote into its parent's state";

  const SequencePtr alone = SequenceOf(common);
  ASSERT_TRUE(Read(*engine_, alone, left).ok());
  EXPECT_TRUE(SameImage(ImageOf(*child), ImageOf(alone))) << "the copy is not the parent's state";

  const StateImage childs = ImageOf(*child);
  ASSERT_TRUE(Read(*engine_, parent, right).ok());
  EXPECT_TRUE(SameImage(ImageOf(*child), childs)) << "the parent wrote into its child's state";
}

// The largest relative L2 difference of a segment.
double Difference(const StateImage& a, const StateImage& b) {
  double largest = 0;
  for (const StateSegment& segment : a.header.segments) {
    if (segment.dtype != StateDType::kFloat32) continue;
    double off = 0, norm = 0;
    for (uint64_t at = segment.offset; at < segment.offset + segment.bytes; at += sizeof(float)) {
      float x, y;
      std::memcpy(&x, a.payload.data() + at, sizeof(x));
      std::memcpy(&y, b.payload.data() + at, sizeof(y));
      off += (double{x} - y) * (double{x} - y);
      norm += double{x} * x;
    }
    largest = std::max(largest, std::sqrt(off / (norm + 1e-30)));
  }
  return largest;
}

// All but the last logits, whose product depends on how many rows of a launch have some.
bool SameState(const StateImage& a, const StateImage& b) {
  const size_t bytes = a.header.segments.back().offset;
  return a.payload.size() == b.payload.size() && a.kv_blocks == b.kv_blocks &&
         a.payload.view().substr(0, bytes) == b.payload.view().substr(0, bytes);
}

// States leave a launch from inside. At the end of a launch they are those of a read that ends
// there, bit for bit; elsewhere that read is a launch of another shape.
TEST_P(CudaEngine, CapturesInsideALaunchAreRightAndChangeNothing) {
  const Ids tokens = Tokens(600, 6);
  const SequencePtr plain = SequenceOf(tokens);
  for (int run = 0; run < 2; ++run) {
    std::vector<StateImage> images;
    ReadWork work;
    work.sequence = *engine_->NewSequence();
    work.tokens = tokens;
    work.checkpoint_every = run == 0 ? 128 : 100;
    work.on_checkpoint = [&](int64_t position, absl::StatusOr<StateImage> image) {
      ASSERT_TRUE(image.ok()) << position << ": " << image.status();
      images.push_back(*std::move(image));
    };
    const SequencePtr sequence = work.sequence;
    const int64_t every = work.checkpoint_every;
    ASSERT_TRUE(testing::StartRead(*engine_, std::move(work))->Wait().ok());
    EXPECT_EQ(static_cast<int64_t>(images.size()), (600 - 1) / every);
    EXPECT_TRUE(SameImage(ImageOf(sequence), ImageOf(plain))) << "a capture changed the read";
    for (const StateImage& image : images) {
      const int64_t position = image.header.token_count;
      const Ids head(tokens.begin(), tokens.begin() + position);
      const StateImage alone = ImageOf(SequenceOf(head));
      if (position == 512) {
        EXPECT_TRUE(SameState(image, alone)) << "at the end of the launch";
      }
      const double most = GetParam().dtype == kernels::DType::kFloat32 ? 1e-3 : 0.1;
      EXPECT_LE(Difference(image, alone), most) << position;
      EXPECT_TRUE(engine_->Restore(image, head).ok()) << position;
    }
  }
}

// What the device encodes is what the host would have made of the exact state, and what it decodes
// is what the host would have given it.
TEST_P(CudaEngine, StatesAreCodedAsTheHostCodesThem) {
  const StateLayout& layout = model_->state_layout();
  const Ids tokens = Tokens(600, 7);
  const auto read = [&](StateCodec codec) {
    std::vector<StateImage> images;
    ReadWork work;
    work.sequence = *engine_->NewSequence();
    work.tokens = tokens;
    work.checkpoint_every = 128;
    work.checkpoint_codec = codec;
    work.on_checkpoint = [&](int64_t position, absl::StatusOr<StateImage> image) {
      ASSERT_TRUE(image.ok()) << position << ": " << image.status();
      images.push_back(*std::move(image));
    };
    const SequencePtr sequence = work.sequence;
    EXPECT_TRUE(testing::StartRead(*engine_, std::move(work))->Wait().ok());
    auto last = engine_->Capture(sequence, codec);
    EXPECT_TRUE(last.ok()) << last.status();
    images.push_back(*std::move(last));
    return images;
  };
  const std::vector<StateImage> exact = read(StateCodec::kExact);
  for (const StateCodec codec : {StateCodec::kNear, StateCodec::kCompact}) {
    const std::vector<StateImage> coded = read(codec);
    ASSERT_EQ(coded.size(), exact.size());
    for (size_t i = 0; i < coded.size(); ++i) {
      SCOPED_TRACE(coded[i].header.token_count);
      const StateImage want = *EncodeState(layout, exact[i], codec);
      ASSERT_EQ(coded[i].header.codec, codec);
      EXPECT_EQ(coded[i].kv_blocks, want.kv_blocks);
      if (codec == StateCodec::kNear) {
        EXPECT_TRUE(coded[i].payload == want.payload);
      }
      const float error = LargestError(want.header);
      EXPECT_NEAR(LargestError(coded[i].header), error, 1e-3 * error);
      const auto header = ParseStateHeader(SerializeStateHeader(coded[i].header));
      ASSERT_TRUE(header.ok()) << header.status();
      const auto decoded = DecodeState(layout, coded[i]), as_host = DecodeState(layout, want);
      ASSERT_TRUE(decoded.ok() && as_host.ok()) << decoded.status();
      EXPECT_TRUE(decoded->payload == as_host->payload);
      if (!engine_->Restores(coded[i].header)) continue;
      const Ids head(tokens.begin(), tokens.begin() + header->token_count);
      const auto restored = engine_->Restore(coded[i], head);
      ASSERT_TRUE(restored.ok()) << restored.status();
      EXPECT_EQ(engine_->Origin(*restored), decoded->header.origin);
      EXPECT_TRUE(SameImage(ImageOf(*restored), *decoded));
    }
  }
}

// Heads of 64 x 128: scans write what is captured in 8 bits in that form (kernels/packed_state.h),
// wherever in a chunk it lies.
TEST_F(CudaPacking, CapturesOfAReadAreWhatTheHostMakesOfExactOnes) {
  constexpr char kConfig[] = R"({"model_type": "mamba2", "vocab_size": 512, "hidden_size": 128,
      "num_hidden_layers": 3, "num_heads": 4, "head_dim": 64, "state_size": 128, "n_groups": 1,
      "expand": 2, "conv_kernel": 4, "tie_word_embeddings": true})";
  auto made = MakeRandomModel(kConfig, CudaOptions(kernels::DType::kBFloat16));
  ASSERT_TRUE(made.ok()) << made.status();
  const std::shared_ptr<Model> model = *std::move(made);
  const StateLayout& layout = model->state_layout();
  ASSERT_GT(layout.packs_from(), 0);
  EngineOptions options;
  options.max_prefill_rows = 2048;
  const auto engine = Engine::Create(model, options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto read = [&](StateCodec codec, int64_t ahead, int64_t every) {
    std::vector<StateImage> images;
    ReadWork work;
    work.sequence = *(*engine)->NewSequence();
    EXPECT_TRUE(Read(**engine, work.sequence, testing::RandomTokens(ahead, 3, 512)).ok());
    work.tokens = testing::RandomTokens(1500, 7, 512);
    work.checkpoint_every = every;
    work.checkpoint_codec = codec;
    work.on_checkpoint = [&](int64_t position, absl::StatusOr<StateImage> image) {
      ASSERT_TRUE(image.ok()) << position << ": " << image.status();
      images.push_back(*std::move(image));
    };
    EXPECT_TRUE(testing::StartRead(**engine, std::move(work))->Wait().ok());
    return images;
  };
  for (const int64_t ahead : {256, 19}) {
    for (const int64_t every : {128, 100}) {
      SCOPED_TRACE(::testing::Message() << "every " << every << " after " << ahead);
      const std::vector<StateImage> exact = read(StateCodec::kExact, ahead, every);
      const std::vector<StateImage> compact = read(StateCodec::kCompact, ahead, every);
      ASSERT_EQ(compact.size(), exact.size());
      ASSERT_GT(compact.size(), 10u);
      for (size_t i = 0; i < compact.size(); ++i) {
        const StateImage want = *EncodeState(layout, exact[i], StateCodec::kCompact);
        const auto decoded = DecodeState(layout, compact[i]);
        const auto as_host = DecodeState(layout, want);
        ASSERT_TRUE(decoded.ok() && as_host.ok()) << decoded.status();
        EXPECT_TRUE(decoded->payload == as_host->payload) << exact[i].header.token_count;
        const float error = LargestError(want.header);
        EXPECT_NEAR(LargestError(compact[i].header), error, 1e-3 * error);
      }
    }
  }
}

TEST_P(CudaEngine, AStateOfTheGpuIsRefusedOnTheCpu) {
  const Ids tokens = Tokens(30, 4);
  const SequencePtr sequence = SequenceOf(tokens);
  const StateImage image = ImageOf(sequence);
  EXPECT_THAT(image.header.numerics_profile, HasSubstr("cuda-"));
  ASSERT_TRUE(engine_->Restore(image, tokens).ok());

  LoadOptions on_cpu;
  on_cpu.dtype = GetParam().dtype;
  on_cpu.state_dtype = GetParam().state_dtype;
  on_cpu.num_threads = 1;
  auto model = Model::Load(testing::GoldenModelDir(GetParam().model), on_cpu);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto other = Engine::Create(*std::move(model), {});
  ASSERT_TRUE(other.ok()) << other.status();
  const auto restored = (*other)->Restore(image, tokens);
  EXPECT_EQ(restored.status().code(), absl::StatusCode::kFailedPrecondition) << restored.status();
}

INSTANTIATE_TEST_SUITE_P(Models, CudaEngine, ::testing::ValuesIn(testing::GoldenCases()),
                         [](const auto& info) { return info.param.name(); });

constexpr auto kHalf = kernels::DType::kBFloat16, kInt8 = kernels::DType::kInt8;
INSTANTIATE_TEST_SUITE_P(
    StatesInFewerBits, CudaEngine,
    ::testing::Values(GoldenCase{"mamba", kHalf, kHalf}, GoldenCase{"mamba2", kHalf, kHalf},
                      GoldenCase{"zamba2", kHalf, kHalf}, GoldenCase{"mamba", kHalf, kInt8},
                      GoldenCase{"mamba2", kHalf, kInt8}, GoldenCase{"zamba2", kHalf, kInt8}),
    [](const auto& info) { return info.param.name(); });

// Sequences that leave recurrent tensors as they are in most steps: where they are captured, and
// where their works end, all is in the state.
class CudaDeferring : public CudaEngine {};

TEST_P(CudaDeferring, ARestoredSessionGoesOnAsTheOneThatStayed) {
  std::vector<SequencePtr> stay, all;
  for (int i = 0; i < Sessions(); ++i) stay.push_back(SequenceOf(Tokens(20 + 37 * i % 300, i)));
  GenerateTogether(stay, kCut);
  all = stay;
  for (const SequencePtr& sequence : stay) {
    auto restored = engine_->Restore(ImageOf(sequence), engine_->Tokens(sequence));
    ASSERT_TRUE(restored.ok()) << restored.status();
    all.push_back(*restored);
  }
  GenerateTogether(all, kGenerated - kCut);
  for (size_t i = 0; i < stay.size(); ++i) {
    const SequencePtr& restored = all[stay.size() + i];
    EXPECT_EQ(engine_->Tokens(stay[i]), engine_->Tokens(restored)) << "session " << i;
    EXPECT_TRUE(SameImage(ImageOf(stay[i]), ImageOf(restored))) << "session " << i;
  }
}

// On the grid of writes captures change nothing; elsewhere the sequence goes on as what was
// captured does.
TEST_P(CudaDeferring, CapturedStatesGoOnAsTheirSequenceDid) {
  const Ids prompt = Tokens(21, 2);
  const auto generate = [&](const SequencePtr& sequence, int64_t every) {
    std::vector<StateImage> images;
    GenerateWork work;
    work.sequence = sequence;
    work.max_tokens = 81 - engine_->Position(sequence);
    work.checkpoint_every = every;
    work.on_checkpoint = [&](int64_t, absl::StatusOr<StateImage> image) {
      ASSERT_TRUE(image.ok()) << image.status();
      images.push_back(*std::move(image));
    };
    EXPECT_TRUE(testing::StartGenerate(*engine_, std::move(work))->Wait().ok());
    return images;
  };
  const SequencePtr plain = SequenceOf(prompt);
  generate(plain, 0);
  const int64_t on_grid = 2 * GetParam().state_write_every;
  for (const int64_t every : {on_grid, int64_t{10}}) {
    const SequencePtr sequence = SequenceOf(prompt);
    const std::vector<StateImage> images = generate(sequence, every);
    EXPECT_EQ(static_cast<int64_t>(images.size()), 80 / every - 21 / every);
    if (every == on_grid) {
      EXPECT_TRUE(SameImage(ImageOf(sequence), ImageOf(plain))) << "a capture changed something";
    }
    for (const StateImage& image : images) {
      Ids tokens = engine_->Tokens(sequence);
      tokens.resize(image.header.token_count);
      const auto restored = engine_->Restore(image, tokens);
      ASSERT_TRUE(restored.ok()) << restored.status();
      generate(*restored, every);
      EXPECT_TRUE(SameImage(ImageOf(sequence), ImageOf(*restored))) << image.header.token_count;
    }
  }
}

TEST_P(CudaDeferring, AForkAndItsParentGoOnAlike) {
  const SequencePtr parent = SequenceOf(Tokens(30, 4));
  GenerateTogether({parent}, 7);
  const StateImage before = ImageOf(parent);
  const auto child = engine_->Fork(parent);
  ASSERT_TRUE(child.ok()) << child.status();
  GenerateTogether({*child}, 20);
  EXPECT_TRUE(SameImage(ImageOf(parent), before));
  GenerateTogether({parent}, 20);
  EXPECT_TRUE(SameImage(ImageOf(parent), ImageOf(*child)));
}

TEST_P(CudaDeferring, LogitsAndStatesAreNearThoseOfPlainSteps) {
  const SequencePtr deferred = SequenceOf(Tokens(40, 5));
  GenerateTogether({deferred}, 120);
  const Ids tokens = engine_->Tokens(deferred);
  const auto logits = engine_->LastLogits(deferred);
  LoadOptions options = CudaOptions(GetParam().dtype);
  options.state_dtype = GetParam().state_dtype;
  auto model = Model::Load(testing::GoldenModelDir(GetParam().model), options);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->fingerprint(), model_->fingerprint());
  const auto plain = *Engine::Create(*std::move(model), {});
  const SequencePtr reference = *plain->NewSequence();
  ASSERT_TRUE(Read(*plain, reference, Ids(tokens.begin(), tokens.begin() + 40)).ok());
  for (size_t i = 40; i < tokens.size(); ++i) {
    ASSERT_TRUE(Read(*plain, reference, {tokens[i]}).ok());
  }
  const auto want = plain->LastLogits(reference);
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(double{logits[i]} - want[i], 2);
    size += std::pow(double{want[i]}, 2);
  }
  const double limit = GetParam().dtype == kernels::DType::kFloat32 ? 1e-3
                       : GetParam().state_dtype == kInt8            ? 0.5
                                                                    : 0.25;
  EXPECT_LT(std::sqrt(error / size), limit);
  // So are the states, where they are float32. What either made, the other takes.
  const StateImage image = ImageOf(deferred);
  EXPECT_LE(Difference(image, *plain->Capture(reference)), limit);
  EXPECT_TRUE(plain->Restore(image, tokens).ok());
}

INSTANTIATE_TEST_SUITE_P(
    Models, CudaDeferring,
    ::testing::Values(GoldenCase{"mamba2", kernels::DType::kFloat32, kernels::DType::kFloat32, 16},
                      GoldenCase{"mamba2", kHalf, kernels::DType::kFloat32, 16},
                      GoldenCase{"mamba2", kHalf, kHalf, 16},
                      GoldenCase{"nemotron_h", kHalf, kernels::DType::kFloat32, 16},
                      GoldenCase{"zamba2", kHalf, kHalf, 7}, GoldenCase{"mamba2", kHalf, kInt8, 16},
                      GoldenCase{"falcon_h1", kernels::DType::kFloat32, kernels::DType::kFloat32,
                                 16}),
    [](const auto& info) { return info.param.name(); });

using CudaMemory = testing::CudaTest;

TEST_F(CudaMemory, MoreSlotsThanFitAreRefusedAndLeaveTheDeviceUsable) {
  auto loaded =
      Model::Load(testing::GoldenModelDir("mamba2"), CudaOptions(kernels::DType::kBFloat16));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::shared_ptr<Model> model = *std::move(loaded);
  const auto available = model->device()->AvailableMemory();
  ASSERT_TRUE(available.ok()) << available.status();
  EngineOptions options;
  options.slots.num_slots =
      static_cast<int32_t>(available->available / 10 * 11 / model->state_layout().slot_bytes());
  const auto refused = Engine::Create(model, options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
  options.slots.num_slots = 4;
  auto engine = Engine::Create(model, options);
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_TRUE(Read(**engine, *(*engine)->NewSequence(), {1, 2, 3}).ok());
}

TEST_F(CudaMemory, WeightsThatDoNotFitAreRefusedBeforeTheyAreRead) {
  LoadOptions options = CudaOptions(kernels::DType::kFloat32);
  options.memory_limit = 1000;
  const auto model = Model::Load(testing::GoldenModelDir("mamba2"), options);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kResourceExhausted) << model.status();
}

}  // namespace
}  // namespace anabranch
