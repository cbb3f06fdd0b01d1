// Decode steps that a device records: what the record was made for holds whenever it is replayed.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "runtime/model_on_device.h"
#include "runtime/replay_key.h"
#include "runtime/single_sequence.h"
#include "tests/runtime/hooked_device.h"

namespace anabranch {
namespace {

// What attention was told of the longest context, in launches of the work at hand.
std::set<int64_t>* launched = nullptr;

absl::Status WatchedAttention(const kernels::AttentionParams& params,
                              const kernels::Launch& launch) {
  if (launched != nullptr) launched->insert(params.max_context);
  return kernels::CpuKernels().attention(params, launch);
}

// Runs what a GPU would replay, and remembers the sizes of the first run under each key: those are
// the ones that a record would have.
class WatchingDevice final : public testing::HookedDevice {
 public:
  WatchingDevice() : kernels_(kernels::CpuKernels()) { kernels_.attention = WatchedAttention; }
  const kernels::KernelSet& kernels() const override { return kernels_; }
  absl::Status Replay(int64_t key, absl::FunctionRef<absl::Status()> work) override {
    std::set<int64_t> sizes;
    launched = &sizes;
    const absl::Status status = work();
    launched = nullptr;
    const auto [recorded, first] = recorded_.emplace(key, sizes);
    if (!first) {
      EXPECT_EQ(recorded->second, sizes) << "replayed with the sizes of another step";
    }
    last_ = recorded->second;
    return status;
  }
  size_t records() const { return recorded_.size(); }
  const std::set<int64_t>& last() const { return last_; }  // sizes of the last replay

 private:
  kernels::KernelSet kernels_;
  std::map<int64_t, std::set<int64_t>> recorded_;
  std::set<int64_t> last_;
};

class Replays : public ::testing::Test {
 protected:
  void Load(const std::string& name) {
    auto model = LoadModelOn(device_, ANABRANCH_GOLDEN_DIR "/models/" + name, {});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }
  // Reads `prompt` tokens in one step, then single ones up to `end`, each of which is looked at.
  void Generate(int64_t prompt, int64_t end, const std::function<void(int64_t)>& look) {
    auto sequence = SingleSequence::Create(*model_, end);
    ASSERT_TRUE(sequence.ok()) << sequence.status();
    const std::vector<int32_t> tokens(prompt, 7);
    ASSERT_TRUE(sequence->Read(tokens).ok());
    for (int64_t position = prompt; position < end; ++position) {
      const int32_t token = static_cast<int32_t>(position % 200);
      const auto logits = sequence->Read({&token, 1});
      ASSERT_TRUE(logits.ok()) << logits.status();
      look(position + 1);
    }
  }

  const std::shared_ptr<WatchingDevice> device_ = std::make_shared<WatchingDevice>();
  std::unique_ptr<Model> model_;
};

TEST_F(Replays, AttentionLooksAsFarAsTheContextHoweverLongAgoTheStepWasRecorded) {
  Load("granitemoehybrid_dense");
  Generate(100, 600, [this](int64_t context) {
    ASSERT_EQ(device_->last().size(), 1u);
    ASSERT_GE(*device_->last().begin(), context);
  });
  EXPECT_EQ(device_->records(), 3u) << "up to 256, 512 and 1,024";
}

TEST_F(Replays, AModelWithoutAttentionIsRecordedOnce) {
  Load("mamba2");
  Generate(100, 600, [this](int64_t) { ASSERT_TRUE(device_->last().empty()); });
  EXPECT_EQ(device_->records(), 1u);
}

TEST(ReplayKey, IsAnotherForEachStepThatIsComputedInAnotherWay) {
  std::set<int64_t> keys;
  int64_t steps = 0;
  for (int32_t sequences : {1, 2, 255, 65535}) {
    for (int64_t context : {int64_t{0}, int64_t{256}, int64_t{512}, int64_t{1} << 30}) {
      for (int flags = 0; flags < 8; ++flags) {
        const int64_t key =
            ReplayKey({sequences, context, (flags & 4) != 0, (flags & 2) != 0, (flags & 1) != 0});
        EXPECT_GE(key, 0);
        keys.insert(key), ++steps;
      }
    }
  }
  EXPECT_EQ(static_cast<int64_t>(keys.size()), steps);
  EXPECT_EQ(RecordedContext(1), 256);
  EXPECT_EQ(RecordedContext(256), 256);
  EXPECT_EQ(RecordedContext(257), 512);
  EXPECT_EQ(RecordedContext(int64_t{1} << 30), int64_t{1} << 30);
}

}  // namespace
}  // namespace anabranch
