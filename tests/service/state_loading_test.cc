// Large states on their way from the library into a slot: in whose memory, and whole.
#include "service/state_loading.h"

#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"
#include "absl/synchronization/notification.h"
#include "runtime/random_model.h"
#include "runtime/state_codec.h"
#include "service/state_storing.h"
#include "tests/bench/shapes.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

const std::vector<int32_t> kTokens = {3, 1, 4, 1, 5, 9, 2, 6};

// A model whose states have about 3 MB, and a library with one of them.
class StateLoadingTest : public LibraryTest {
 protected:
  void SetUp() override {
    LibraryTest::SetUp();
    LoadOptions load;
    load.dtype = kernels::DType::kFloat32;
    load.num_threads = 1;
    std::string config =
        absl::StrReplaceAll(bench::FindShape("tiny")->config,
                            {{R"("num_hidden_layers": 2)", R"("num_hidden_layers": 20)"}});
    auto model = MakeRandomModel(config, load);
    ASSERT_TRUE(model.ok()) << model.status();
    auto engine = Engine::Create(*std::move(model), EngineOptions());
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    SequencePtr sequence = *engine_->NewSequence();
    absl::Notification done;
    ReadWork work;
    work.sequence = sequence;
    work.tokens = kTokens;
    work.on_done = [&](const absl::Status& status, const WorkStats&) {
      EXPECT_EQ(status, absl::OkStatus());
      done.Notify();
    };
    ASSERT_EQ(engine_->Submit(std::move(work)), absl::OkStatus());
    done.WaitForNotification();
    image_ = *engine_->Capture(sequence);
    ASSERT_GT(image_.payload.size(), 2u << 20);
    logits_.assign(engine_->LastLogits(sequence).begin(), engine_->LastLogits(sequence).end());
  }
  std::string Store(StateCodec codec) {
    PutState put;
    put.record.tenant = kTenant;
    put.record.span_tokens = kTokens;
    StateStoring storing;
    storing.layout = &engine_->model().state_layout();
    StageImage(*EncodeFor(storing, codec, image_), {}, &put);
    put.record.id = StateId(put.record);
    EXPECT_EQ(Commit(put), absl::OkStatus());
    return put.record.id;
  }

  std::unique_ptr<Engine> engine_;
  StateImage image_;
  std::vector<float> logits_;
};

TEST_F(StateLoadingTest, ALargeStateIsReadIntoTheBlockThatIsGivenAndGoesOn) {
  const std::string id = Store(StateCodec::kExact);
  EXPECT_GT(store_->GetState(kTenant, id)->payload_part_bytes, 0u);
  const void* given = nullptr;
  const auto loaded = LoadToRestore(*store_, *engine_, kTenant, id, [&](size_t bytes) {
    absl::StatusOr<Buffer> block = engine_->PayloadMemory(bytes);
    EXPECT_GE(block->size(), bytes);
    given = block->data();
    return block;
  });
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->image.payload.data(), given);
  EXPECT_EQ(loaded->image.payload, image_.payload);
  const auto restored = engine_->Restore(loaded->image, loaded->tokens);
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(engine_->LastLogits(*restored), absl::MakeConstSpan(logits_));
}

TEST_F(StateLoadingTest, ALossyStateIsDecodedFromItsBlock) {
  const std::string id = Store(StateCodec::kNear);
  const auto loaded = LoadToRestore(*store_, *engine_, kTenant, id,
                                    [&](size_t bytes) { return engine_->PayloadMemory(bytes); });
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->image.payload.size(), image_.payload.size());
  EXPECT_TRUE(engine_->Restore(loaded->image, loaded->tokens).ok());
  const auto stored = LoadStored(*store_, engine_->model(), kTenant, id);
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->image.payload.view(), *store_->GetPayload(kTenant, id));
}

TEST_F(StateLoadingTest, MemoryThatCannotBeHadIsAnErrorOfThatLoadAlone) {
  const std::string id = Store(StateCodec::kExact);
  const auto none = [](size_t) -> absl::StatusOr<Buffer> {
    return absl::ResourceExhaustedError("no memory");
  };
  EXPECT_THAT(LoadToRestore(*store_, *engine_, kTenant, id, none).status(),
              FailsWith(absl::StatusCode::kResourceExhausted, "no memory"));
  EXPECT_TRUE(LoadState(*store_, engine_->model(), kTenant, id).ok());
}

}  // namespace
}  // namespace anabranch
