// Captures beside the steps: that a state kept inside a launch is the one of stopping there, that
// places bound what is on its way while others go on, and what a copy that fails costs.
#include "runtime/capture_queue.h"

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/host_buffers.h"
#include "runtime/state_codec.h"
#include "tests/runtime/engine_harness.h"
#include "tests/runtime/hooked_device.h"

namespace anabranch {
namespace {

using ::testing::ElementsAre;
using testing::FakeModel;
using testing::HookedDevice;
using testing::Outcome;
using testing::OutcomePtr;
using testing::RandomTokens;
using testing::Read;
using testing::StartGenerate;
using testing::StartRead;

// An engine whose device does as the test says.
class CaptureQueueTest : public ::testing::Test {
 protected:
  // What a work reported of its checkpoints, in order.
  struct Reports {
    std::vector<int64_t> positions;
    std::vector<absl::StatusOr<StateImage>> images;
    OutcomePtr outcome;
  };

  void Start(int32_t places, StateLayout layout = testing::HybridLayout()) {
    EngineOptions options;
    options.slots.poison_released = true;
    options.slots.num_slots = 8;
    options.capture_places = places;
    options.valid_vocab = FakeModel::kPoison;
    model_ = std::make_shared<FakeModel>(std::move(layout));
    model_->set_device(device_);
    auto engine = Engine::Create(model_, options);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  void TearDown() override { device_->set_hook(nullptr); }

  SequencePtr NewSequence() { return *engine_->NewSequence(); }
  int64_t RowsRead() const {
    int64_t rows = 0;
    for (const auto& step : model_->steps()) {
      for (const FakeModel::Part& part : step) rows += part.rows;
    }
    return rows;
  }
  template <class W>
  void ReportInto(Reports& reports, W& work, int64_t every) {
    work.checkpoint_every = every;
    work.on_checkpoint = [&reports](int64_t position, absl::StatusOr<StateImage> image) {
      if (reports.outcome != nullptr) {
        EXPECT_FALSE(reports.outcome->done.HasBeenNotified());
      }
      reports.positions.push_back(position);
      reports.images.push_back(std::move(image));
    };
  }
  OutcomePtr ReadOnGrid(const SequencePtr& sequence, std::vector<int32_t> tokens, int64_t every,
                        Reports& reports, std::shared_ptr<CancelToken> cancel = nullptr,
                        StateCodec codec = StateCodec::kExact) {
    ReadWork work;
    work.checkpoint_codec = codec;
    work.sequence = sequence;
    work.tokens = std::move(tokens);
    work.options.cancel = std::move(cancel);
    ReportInto(reports, work, every);
    return StartRead(*engine_, std::move(work));
  }

  // Holds copies to the host until opened.
  void CloseGate() {
    device_->set_hook([this](CopyDirection direction) {
      if (direction == CopyDirection::kToHost) {
        held_.fetch_add(1);
        gate_.WaitForNotification();
      }
      return absl::OkStatus();
    });
  }

  const std::shared_ptr<HookedDevice> device_ = std::make_shared<HookedDevice>();
  absl::Notification gate_;
  std::atomic<int> held_{0};
  std::shared_ptr<FakeModel> model_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(CaptureQueueTest, StatesInsideAStepAreThoseOfReadsThatEndThere) {
  for (const bool bf16 : {false, true}) {
    Start(/*places=*/16, testing::HybridLayout(bf16));
    if (bf16) Start(/*places=*/16, testing::RecurrentLayout());
    const std::vector<int32_t> tokens = RandomTokens(500, 1);
    Reports reports;
    ASSERT_TRUE(ReadOnGrid(NewSequence(), tokens, 70, reports)->Wait().ok());
    EXPECT_THAT(reports.positions, ElementsAre(70, 140, 210, 280, 350, 420, 490));
    EXPECT_EQ(model_->steps().size(), 1) << "a checkpoint split the step";
    for (size_t i = 0; i < reports.images.size(); ++i) {
      const int64_t position = reports.positions[i];
      const SequencePtr alone = NewSequence();
      ASSERT_TRUE(Read(*engine_, alone, {tokens.begin(), tokens.begin() + position}).ok());
      const auto want = engine_->Capture(alone);
      ASSERT_TRUE(want.ok()) << want.status();
      const auto& got = reports.images[i];
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_EQ(got->header.token_count, position);
      EXPECT_TRUE(got->payload == want->payload) << position;
      EXPECT_EQ(got->kv_blocks, want->kv_blocks) << position;
      EXPECT_EQ(SerializeStateHeader(got->header), SerializeStateHeader(want->header)) << position;
    }
  }
}

// Bytes and origin of one state are those of another, but for the compression that a device leaves
// out.
void ExpectSameState(const StateLayout& layout, const StateImage& got, const StateImage& want) {
  EXPECT_EQ(got.header.codec, want.header.codec);
  EXPECT_EQ(got.header.origin, want.header.origin);
  EXPECT_EQ(got.header.token_count, want.header.token_count);
  EXPECT_EQ(got.kv_blocks, want.kv_blocks);
  EXPECT_NEAR(LargestError(got.header), LargestError(want.header), 1e-9);
  const auto a = DecodeState(layout, got), b = DecodeState(layout, want);
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_TRUE(a->payload == b->payload);
  if (got.header.codec != StateCodec::kNear) return;
  EXPECT_EQ(SerializeStateHeader(got.header), SerializeStateHeader(want.header));
  EXPECT_TRUE(got.payload == want.payload);
}

// In a lossy codec the device or the host encodes, and what is reported is what encoding the exact
// state gives. A sequence restored from it goes on as from the decoded state.
TEST_F(CaptureQueueTest, StatesComeInTheCodecThatWasAskedFor) {
  for (const bool codes : {false, true}) {
    for (const StateLayout& state : {testing::HybridLayout(), testing::RecurrentLayout()}) {
      for (const StateCodec codec : {StateCodec::kNear, StateCodec::kCompact}) {
        SCOPED_TRACE(absl::StrCat(codes, state.has_kv(), StateCodecName(codec)));
        engine_ = nullptr;
        device_->set_codes(codes);
        Start(/*places=*/16, state);
        const StateLayout& layout = model_->state_layout();
        const std::vector<int32_t> tokens = RandomTokens(300, 1);
        Reports reports;
        ASSERT_TRUE(ReadOnGrid(NewSequence(), tokens, 70, reports, nullptr, codec)->Wait().ok());
        EXPECT_THAT(reports.positions, ElementsAre(70, 140, 210, 280));
        for (const auto& got : reports.images) {
          ASSERT_TRUE(got.ok()) << got.status();
          const std::vector<int32_t> head(tokens.begin(), tokens.begin() + got->header.token_count);
          const SequencePtr alone = NewSequence();
          ASSERT_TRUE(Read(*engine_, alone, head).ok());
          const StateImage want = *EncodeState(layout, *engine_->Capture(alone), codec);
          ExpectSameState(layout, *got, want);
          ExpectSameState(layout, *engine_->Capture(alone, codec), want);
          EXPECT_EQ(engine_->Restores(got->header), codes);
          if (!codes) continue;
          const StateImage decoded = *DecodeState(layout, *got);
          const auto a = engine_->Restore(*got, head), b = engine_->Restore(decoded, head);
          ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
          EXPECT_EQ(engine_->Origin(*a), (StateOrigin{1, codec, got->header.token_count}));
          EXPECT_EQ(engine_->Origin(*b), engine_->Origin(*a));
          EXPECT_TRUE(engine_->Capture(*a)->payload == engine_->Capture(*b)->payload);
          EXPECT_EQ(engine_->Capture(*a)->kv_blocks, engine_->Capture(*b)->kv_blocks);
        }
      }
    }
  }
}

StateLayout PackedLayout(int32_t from) {
  StateLayout layout = testing::RecurrentLayout();
  for (StateEntry& entry : layout.entries) {
    if (entry.kind == StateKind::kRecurrent) entry.packs_from = from;
  }
  return layout;
}

// Where kernels pack what is captured in 8 bits, it is the same as what the device or the host
// would have made of it; steps of fewer rows, other codecs and streams go on without.
TEST_F(CaptureQueueTest, WhatKernelsHavePackedIsWhatTheCodecGives) {
  for (const int32_t from : {1, 120, 1000}) {
    for (const StateCodec codec : {StateCodec::kExact, StateCodec::kCompact}) {
      SCOPED_TRACE(absl::StrCat(from, StateCodecName(codec)));
      engine_ = nullptr;
      device_->set_codes(true);
      Start(/*places=*/16, PackedLayout(from));
      const std::vector<int32_t> tokens = RandomTokens(300, 1);
      Reports reports;
      ASSERT_TRUE(ReadOnGrid(NewSequence(), tokens, 70, reports, nullptr, codec)->Wait().ok());
      EXPECT_EQ(model_->packed(), codec == StateCodec::kCompact && from < 1000 ? 4 : 0);
      ASSERT_EQ(reports.images.size(), 4);
      for (const auto& got : reports.images) {
        ASSERT_TRUE(got.ok()) << got.status();
        const SequencePtr alone = NewSequence();
        ASSERT_TRUE(
            Read(*engine_, alone, {tokens.begin(), tokens.begin() + got->header.token_count}).ok());
        const StateLayout& layout = model_->state_layout();
        ExpectSameState(layout, *got, *EncodeState(layout, *engine_->Capture(alone), codec));
      }
    }
  }
}

// The state itself is gone by then: the capture fails and says why, and the read goes on.
TEST_F(CaptureQueueTest, APackedStateThatTheCodecCannotHoldIsReportedAsThat) {
  device_->set_codes(true);
  Start(/*places=*/16, PackedLayout(1));
  model_->set_refuses(true);
  Reports reports;
  ASSERT_TRUE(
      ReadOnGrid(NewSequence(), RandomTokens(300, 1), 100, reports, nullptr, StateCodec::kCompact)
          ->Wait()
          .ok());
  ASSERT_EQ(reports.images.size(), 2);
  for (const auto& image : reports.images) {
    EXPECT_TRUE(absl::IsOutOfRange(image.status())) << image.status();
    EXPECT_THAT(std::string(image.status().message()),
                ::testing::AllOf(::testing::HasSubstr("layer 0 recurrent"),
                                 ::testing::HasSubstr("compact")));
  }
}

// What a layer leaves is taken to the host while later layers run, and nothing of the images shows
// it. A step that fails after that has captured nothing, and keeps no place.
TEST_F(CaptureQueueTest, WhatALayerLeavesIsCopiedWhileTheStepRuns) {
  for (const bool codes : {false, true}) {
    SCOPED_TRACE(codes);
    engine_ = nullptr;
    device_->set_codes(codes);
    Start(/*places=*/8);
    const std::vector<int32_t> tokens = RandomTokens(260, 9);
    std::atomic<int> copies{0}, waited{0};
    std::atomic<bool> fails{true};
    device_->set_hook([&](CopyDirection direction) {
      copies.fetch_add(direction == CopyDirection::kToHost ? 1 : 0);
      return absl::OkStatus();
    });
    model_->set_hook([&](const std::vector<FakeModel::Part>&) -> absl::Status {
      const absl::Time limit = absl::Now() + absl::Seconds(20);
      const auto there = [&] { return codes ? device_->coded() > 0 : copies.load() > 0; };
      while (!there() && absl::Now() < limit) std::this_thread::yield();
      waited.fetch_add(there() ? 1 : 0);
      return fails.load() ? absl::InternalError("no such luck") : absl::OkStatus();
    });
    Reports none;
    EXPECT_FALSE(ReadOnGrid(NewSequence(), tokens, 80, none)->Wait().ok());
    EXPECT_TRUE(none.positions.empty());
    fails = false;
    Reports reports;
    ASSERT_TRUE(ReadOnGrid(NewSequence(), tokens, 80, reports)->Wait().ok());
    EXPECT_EQ(waited.load(), 2) << "nothing was copied before the step ended";
    EXPECT_THAT(reports.positions, ElementsAre(80, 160, 240));
    model_->set_hook(nullptr);
    for (const auto& got : reports.images) {
      ASSERT_TRUE(got.ok()) << got.status();
      const SequencePtr alone = NewSequence();
      const std::vector<int32_t> head(tokens.begin(), tokens.begin() + got->header.token_count);
      ASSERT_TRUE(Read(*engine_, alone, head).ok());
      ExpectSameState(model_->state_layout(), *got, *engine_->Capture(alone));
    }
    Reports more;
    ASSERT_TRUE(ReadOnGrid(NewSequence(), RandomTokens(2000, 5), 50, more)->Wait().ok());
    EXPECT_EQ(more.positions.size(), 39) << "a place was lost";
  }
}

// Captures of an earlier read are still on their way while two others share a step. The second of
// them takes its time to hear of its progress: by then the first one's captures are taken to the
// host, and their places are free for others before the step has been settled.
TEST_F(CaptureQueueTest, AStepThatIsOverIsFollowedNoMore) {
  Start(/*places=*/16, testing::RecurrentLayout());
  CloseGate();
  Reports earlier, a, b;
  ReadWork ahead;
  ahead.sequence = NewSequence();
  ahead.tokens = RandomTokens(100, 1);
  ReportInto(earlier, ahead, 60);
  absl::Notification running, submitted;
  model_->set_hook([&running](const std::vector<FakeModel::Part>&) {
    if (!running.HasBeenNotified()) running.Notify();
    return absl::OkStatus();
  });
  ahead.on_progress = [&](absl::Span<const int32_t>, int64_t) {
    submitted.WaitForNotification();  // so that the two are there together
  };
  const auto read_ahead = StartRead(*engine_, std::move(ahead));
  running.WaitForNotification();
  const auto read_a = ReadOnGrid(NewSequence(), RandomTokens(250, 2), 60, a);
  ReadWork work;
  work.sequence = NewSequence();
  work.tokens = RandomTokens(250, 3);
  work.on_progress = [this](absl::Span<const int32_t>, int64_t) {
    if (!gate_.HasBeenNotified()) gate_.Notify();
    absl::SleepFor(absl::Milliseconds(50));
  };
  ReportInto(b, work, 60);
  const auto read_b = StartRead(*engine_, std::move(work));
  submitted.Notify();
  ASSERT_TRUE(read_ahead->Wait().ok() && read_a->Wait().ok() && read_b->Wait().ok());
  model_->set_hook(nullptr);
  EXPECT_THAT(earlier.positions, ElementsAre(60));
  // The first one's in two pieces at most, since its step may be followed; the others' in one.
  EXPECT_LE(held_.load(), 2 + 4 + 4) << "places were copied that are others' by now";
  for (const Reports* reports : {&a, &b}) {
    EXPECT_THAT(reports->positions, ElementsAre(60, 120, 180, 240));
    for (const auto& image : reports->images) EXPECT_TRUE(image.ok()) << image.status();
  }
}

TEST_F(CaptureQueueTest, PlacesBoundARead_OthersGoOn) {
  Start(/*places=*/2);
  CloseGate();
  Reports reports;
  const auto read = ReadOnGrid(NewSequence(), RandomTokens(400, 2), 50, reports);
  while (held_.load() == 0) std::this_thread::yield();
  // A stream without checkpoints is not held up by the reader that waits for a place.
  const SequencePtr stream = NewSequence();
  ASSERT_TRUE(Read(*engine_, stream, RandomTokens(10, 3)).ok());
  ASSERT_TRUE(StartGenerate(*engine_, stream, 30)->Wait().ok());
  EXPECT_EQ(RowsRead(), 100 + 10 + 30) << "two places: nothing is read behind the second";
  EXPECT_FALSE(read->done.HasBeenNotified());
  gate_.Notify();
  ASSERT_TRUE(read->Wait().ok());
  EXPECT_THAT(reports.positions, ElementsAre(50, 100, 150, 200, 250, 300, 350));
  for (const auto& image : reports.images) EXPECT_TRUE(image.ok()) << image.status();
}

TEST_F(CaptureQueueTest, AFailedCopyCostsItsCaptureAlone) {
  Start(/*places=*/4);
  std::atomic<int> copies{0};
  device_->set_hook([&](CopyDirection direction) {
    const bool fails = direction == CopyDirection::kToHost && copies.fetch_add(1) == 0;
    return fails ? absl::InternalError("the link is down") : absl::OkStatus();
  });
  const std::vector<int32_t> tokens = RandomTokens(200, 4);
  const SequencePtr sequence = NewSequence();
  Reports reports;
  ASSERT_TRUE(ReadOnGrid(sequence, tokens, 60, reports)->Wait().ok());
  EXPECT_THAT(reports.positions, ElementsAre(60, 120, 180));
  EXPECT_EQ(reports.images[0].status(), absl::InternalError("the link is down"));
  for (size_t i : {1, 2}) {
    ASSERT_TRUE(reports.images[i].ok()) << reports.images[i].status();
    const int64_t position = reports.positions[i];
    auto restored =
        engine_->Restore(*reports.images[i], {tokens.begin(), tokens.begin() + position});
    ASSERT_TRUE(restored.ok()) << restored.status();
    ASSERT_TRUE(Read(*engine_, *restored, {tokens.begin() + position, tokens.end()}).ok());
    EXPECT_EQ(testing::Logits(*engine_, *restored), testing::Logits(*engine_, sequence));
  }
  // No place was lost: as many captures as before find theirs.
  Reports again;
  ASSERT_TRUE(ReadOnGrid(NewSequence(), RandomTokens(2000, 5), 50, again)->Wait().ok());
  EXPECT_EQ(again.positions.size(), 39);
}

TEST_F(CaptureQueueTest, AFailedCopyWithinTheDeviceIsReportedInOrder) {
  Start(/*places=*/4);
  const SequencePtr sequence = NewSequence();
  ASSERT_TRUE(Read(*engine_, sequence, RandomTokens(10, 6)).ok());
  std::atomic<int> copies{0};
  device_->set_hook([&](CopyDirection direction) {
    const bool fails = direction == CopyDirection::kWithin && copies.fetch_add(1) == 1;
    return fails ? absl::InternalError("no launch") : absl::OkStatus();
  });
  GenerateWork work;
  work.sequence = sequence;
  work.max_tokens = 22;
  Reports reports;
  ReportInto(reports, work, 5);
  ASSERT_TRUE(StartGenerate(*engine_, std::move(work))->Wait().ok());
  EXPECT_THAT(reports.positions, ElementsAre(15, 20, 25, 30));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(reports.images[i].ok(), i != 1) << reports.images[i].status();
  }
}

TEST_F(CaptureQueueTest, CancelledWorkEndsWhenItsCapturesAreReported) {
  Start(/*places=*/2);
  CloseGate();
  const auto cancel = std::make_shared<CancelToken>();
  const SequencePtr sequence = NewSequence();
  Reports reports;
  const auto read = ReadOnGrid(sequence, RandomTokens(400, 7), 50, reports, cancel);
  while (held_.load() == 0) std::this_thread::yield();
  cancel->Cancel();
  EXPECT_FALSE(read->done.WaitForNotificationWithTimeout(absl::Milliseconds(20)));
  EXPECT_EQ(engine_->Fork(sequence).status().code(), absl::StatusCode::kFailedPrecondition)
      << "the pages are still being read";
  gate_.Notify();
  EXPECT_EQ(read->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(static_cast<int64_t>(reports.positions.size()), engine_->Position(sequence) / 50);
  EXPECT_TRUE(Read(*engine_, sequence, {1, 2, 3}).ok());
}

TEST_F(CaptureQueueTest, DestructionReportsWhatWasCaptured) {
  Start(/*places=*/4);
  CloseGate();
  Reports reports;
  reports.outcome = std::make_shared<Outcome>();
  ReadWork work;
  work.sequence = NewSequence();
  work.tokens = RandomTokens(400, 8);
  ReportInto(reports, work, 50);
  work.on_done = [outcome = reports.outcome](absl::Status status, const WorkStats&) {
    outcome->status = std::move(status);
    outcome->done.Notify();
  };
  ASSERT_TRUE(engine_->Submit(std::move(work)).ok());
  while (held_.load() == 0) std::this_thread::yield();
  std::thread opens([this] {
    absl::SleepFor(absl::Milliseconds(20));
    gate_.Notify();
  });
  engine_.reset();
  opens.join();
  ASSERT_TRUE(reports.outcome->done.HasBeenNotified());
  EXPECT_EQ(reports.outcome->status.code(), absl::StatusCode::kCancelled);
  EXPECT_GE(reports.positions.size(), 1);
  for (const auto& image : reports.images) EXPECT_TRUE(image.ok()) << image.status();
}

TEST(HostBuffersTest, BlocksComeBackAndFurtherOnesAreOrdinary) {
  auto device = std::make_shared<HookedDevice>();
  HostBuffers buffers(device, 2500);
  const void* first = nullptr;
  {
    const Buffer a = *buffers.Take(1000);
    first = a.data();
    const Buffer copy = a;  // another holder
    const Buffer b = *buffers.Take(1000), c = *buffers.Take(1000);
    EXPECT_NE(a.data(), b.data());
    EXPECT_NE(b.data(), c.data());
    EXPECT_EQ(c.size(), 1000);
  }
  std::vector<Buffer> again;
  for (int i = 0; i < 2; ++i) again.push_back(*buffers.Take(1000));
  EXPECT_TRUE(again[0].data() == first || again[1].data() == first);
}

// As when a session asks for another codec: what was made for small blocks makes room.
TEST(HostBuffersTest, BlocksOfOtherSizesMakeRoom) {
  HostBuffers buffers(std::make_shared<HookedDevice>(), 1000);
  std::vector<const void*> small;
  {
    std::vector<Buffer> blocks;
    for (int i = 0; i < 10; ++i) blocks.push_back(*buffers.Take(100));
    for (const Buffer& block : blocks) small.push_back(block.data());
  }
  const void* kept = nullptr;
  {
    const Buffer large = *buffers.Take(900);
    kept = large.data();
    const Buffer last = *buffers.Take(60);
    EXPECT_THAT(small, ::testing::Contains(last.data())) << "one of the small ones was left";
  }
  const Buffer large = *buffers.Take(500);
  EXPECT_EQ(large.data(), kept) << "less than twice as much serves, too";
  EXPECT_EQ(large.size(), 500);
}

TEST(HostBuffersTest, BlocksOutliveThePool) {
  Buffer block;
  {
    HostBuffers buffers(std::make_shared<HookedDevice>(), 64);
    block = *buffers.Take(64);
  }
  std::memset(block.data(), 1, block.size());
  const Buffer copy = std::move(block);
  EXPECT_EQ(static_cast<const char*>(copy.data())[63], 1);
}

TEST(StateBytesTest, ABlockIsReadInPlaceAndChangedAsAString) {
  Buffer block = *Buffer::Allocate(8);
  std::memcpy(block.data(), "abcdefgh", 8);
  StateBytes bytes(block, 5);
  EXPECT_EQ(bytes.data(), block.data());
  EXPECT_EQ(std::string(bytes.view()), "abcde");
  StateBytes copied = bytes;
  EXPECT_NE(copied.data(), bytes.data());
  copied.text() += 'x';
  EXPECT_EQ(std::string(copied.view()), "abcdex");
  EXPECT_FALSE(copied == bytes);
  const StateBytes moved = std::move(bytes);
  EXPECT_EQ(moved.data(), block.data());
  EXPECT_TRUE(bytes.empty());  // NOLINT: what it was moved from is empty
  EXPECT_EQ(StateBytes(block, 3).TakeString(), "abc");
}

}  // namespace
}  // namespace anabranch
