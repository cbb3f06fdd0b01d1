#include "runtime/state_image.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/state_codec.h"
#include "runtime/state_table.h"
#include "tests/runtime/hooked_device.h"
#include "tests/runtime/test_layouts.h"

namespace anabranch {
namespace {

using ::testing::HasSubstr;
using testing::HybridLayout;
using testing::RecurrentLayout;

constexpr char kFingerprint[] = "aaaaaaaaaaaaaaaabbbb";
constexpr char kProfile[] = "cpu-float32";

std::unique_ptr<SlotPool> MakePool(const StateLayout& layout, int32_t slots = 4, int32_t pages = 8,
                                   std::shared_ptr<Device> device = nullptr) {
  SlotPool::Options options;
  options.num_slots = slots;
  options.num_kv_pages = pages;
  return *SlotPool::Create(layout, options, std::move(device));
}

// On a device that codes states.
std::unique_ptr<SlotPool> CodingPool(const StateLayout& layout) {
  auto device = std::make_shared<testing::HookedDevice>();
  device->set_codes(true);
  return MakePool(layout, 4, 8, device);
}

// A sequence whose every element is a random value that its dtype holds exactly.
SlotRef RandomSequence(SlotPool& pool, int64_t tokens, uint32_t seed) {
  std::mt19937 random(seed);
  SlotRef ref = *pool.Acquire();
  EXPECT_TRUE(pool.PrepareWrite(ref, tokens).ok());
  ref.position = tokens;
  const auto fill = [&](const StateEntry& entry, absl::Span<uint8_t> bytes) {
    const size_t size = StateDTypeBytes(entry.dtype);
    for (size_t i = 0; i < bytes.size(); i += size) {
      const double value = static_cast<int>(random() % 255) - 127;
      const float narrow = value;
      uint32_t bits;
      std::memcpy(&bits, &narrow, 4);
      const uint16_t half = bits >> 16;
      if (size == 8) std::memcpy(&bytes[i], &value, 8);
      if (size == 4) std::memcpy(&bytes[i], &narrow, 4);
      if (size == 2) std::memcpy(&bytes[i], &half, 2);
    }
  };
  for (size_t e = 0; e < pool.layout().entries.size(); ++e) {
    const StateEntry& entry = pool.layout().entries[e];
    if (!entry.paged()) {
      fill(entry, pool.SlotBytes(ref, e));
      continue;
    }
    for (size_t p = 0; p < ref.pages.size(); ++p) {
      auto page = pool.PageBytes(ref, e, p);
      const int64_t filled = std::min<int64_t>(tokens - p * kKvPageTokens, kKvPageTokens);
      fill(entry, page.first(page.size() / kKvPageTokens * filled));
    }
  }
  return ref;
}

bool SameState(SlotPool& pool_a, const SlotRef& a, SlotPool& pool_b, const SlotRef& b) {
  if (a.position != b.position || a.pages.size() != b.pages.size()) return false;
  for (size_t e = 0; e < pool_a.layout().entries.size(); ++e) {
    if (!pool_a.layout().entries[e].paged()) {
      if (pool_a.SlotBytes(a, e) != pool_b.SlotBytes(b, e)) return false;
      continue;
    }
    for (size_t p = 0; p < a.pages.size(); ++p) {
      if (pool_a.PageBytes(a, e, p) != pool_b.PageBytes(b, e, p)) return false;
    }
  }
  return true;
}

const std::vector<float> kLogits = {1.5f, -2, 0.25f, 7};

StateImage RandomImage(const StateLayout& layout, int64_t tokens, uint32_t seed = 1) {
  auto pool = MakePool(layout);
  const SlotRef ref = RandomSequence(*pool, tokens, seed);
  auto image = CaptureState(*pool, ref, kFingerprint, kProfile, kLogits);
  EXPECT_TRUE(image.ok()) << image.status();
  return *std::move(image);
}

absl::Status Restore(const StateImage& image, const StateLayout& layout,
                     const std::string& fingerprint = kFingerprint,
                     const std::string& profile = kProfile) {
  auto pool = MakePool(layout);
  const absl::Status status = RestoreState(*pool, image, fingerprint, profile).status();
  if (!status.ok()) {
    EXPECT_EQ(pool->usage().slots_used, 0) << "a failed restore kept its slot";
    EXPECT_EQ(pool->usage().pages_used, 0);
  }
  return status;
}

TEST(StateImageTest, RestoreGivesTheCapturedBits) {
  for (const bool bf16 : {false, true}) {
    const StateLayout layout = HybridLayout(bf16);
    for (const int64_t tokens : {0, 1, 255, 256, 257, 700}) {
      auto pool = MakePool(layout);
      const SlotRef ref = RandomSequence(*pool, tokens, tokens);
      auto image = CaptureState(*pool, ref, kFingerprint, kProfile, kLogits);
      ASSERT_TRUE(image.ok()) << image.status();
      // Through bytes, into another pool.
      auto header = ParseStateHeader(SerializeStateHeader(image->header));
      ASSERT_TRUE(header.ok()) << header.status();
      image->header = *header;
      auto other = MakePool(layout);
      auto restored = RestoreState(*other, *image, kFingerprint, kProfile);
      ASSERT_TRUE(restored.ok()) << restored.status();
      EXPECT_EQ(restored->last_logits, kLogits);
      EXPECT_TRUE(SameState(*pool, ref, *other, restored->ref)) << tokens << " bf16 " << bf16;
    }
  }
}

TEST(StateImageTest, ADeviceThatCodesGivesTheSameExactBytes) {
  for (const bool bf16 : {false, true}) {
    const StateLayout layout = HybridLayout(bf16);
    auto pool = MakePool(layout), coding = CodingPool(layout);
    const SlotRef ref = RandomSequence(*pool, 300, 1), same = RandomSequence(*coding, 300, 1);
    const StateImage want = *CaptureState(*pool, ref, kFingerprint, kProfile, kLogits);
    const StateImage got = *CaptureState(*coding, same, kFingerprint, kProfile, kLogits);
    EXPECT_EQ(SerializeStateHeader(got.header), SerializeStateHeader(want.header));
    EXPECT_TRUE(got.payload == want.payload);
    EXPECT_EQ(got.kv_blocks, want.kv_blocks);
    const auto restored = RestoreState(*coding, want, kFingerprint, kProfile);
    ASSERT_TRUE(restored.ok()) << restored.status();
    EXPECT_EQ(restored->last_logits, kLogits);
    EXPECT_TRUE(SameState(*pool, ref, *coding, restored->ref));
  }
}

// What one value keeps a codec from holding is stored plainly, and so by the host.
TEST(StateImageTest, AValueThatTheCodecCannotHoldIsStoredAsItIs) {
  const StateLayout layout = HybridLayout();
  auto pool = CodingPool(layout);
  const SlotRef ref = RandomSequence(*pool, 30, 1);
  const float odd = std::numeric_limits<float>::infinity();
  std::memcpy(pool->SlotBytes(ref, 1).data(), &odd, sizeof(odd));
  const StateImage exact = *CaptureState(*pool, ref, kFingerprint, kProfile, kLogits);
  for (const StateCodec codec : {StateCodec::kNear, StateCodec::kCompact}) {
    const auto got = CaptureState(*pool, ref, kFingerprint, kProfile, kLogits, codec);
    ASSERT_TRUE(got.ok()) << got.status();
    const StateImage want = *EncodeState(layout, exact, codec);
    EXPECT_EQ(SerializeStateHeader(got->header), SerializeStateHeader(want.header));
    EXPECT_TRUE(got->payload == want.payload);
    EXPECT_EQ(RestoreState(*pool, want, kFingerprint, kProfile).ok(), codec == StateCodec::kNear);
  }
}

// A state that is decoded on the device is checked as one that the host decodes.
TEST(StateImageTest, DamagedCodesAreRefusedOnADeviceThatCodes) {
  const StateLayout layout = HybridLayout();
  for (const StateCodec codec : {StateCodec::kNear, StateCodec::kCompact}) {
    auto pool = CodingPool(layout);
    const SlotRef ref = RandomSequence(*pool, 300, 1);
    const StateImage image = *CaptureState(*pool, ref, kFingerprint, kProfile, kLogits, codec);
    const auto refused = [&](const StateImage& damaged) {
      const auto usage = pool->usage();
      const absl::Status status = RestoreState(*pool, damaged, kFingerprint, kProfile).status();
      EXPECT_EQ(pool->usage().slots_used, usage.slots_used);
      return status.code() == absl::StatusCode::kDataLoss;
    };
    for (size_t i = 0; i < image.payload.size(); ++i) {
      StateImage damaged = image;
      damaged.payload[i] ^= 1;
      ASSERT_TRUE(refused(damaged)) << i;
    }
    StateImage cut = image;
    cut.payload.text().pop_back();
    EXPECT_TRUE(refused(cut));
    StateImage fewer = image;
    fewer.kv_blocks.pop_back();
    EXPECT_TRUE(refused(fewer));
    StateImage block = image;
    block.kv_blocks[0][5] ^= 1;
    EXPECT_TRUE(refused(block));
    // A scale that no codec writes, behind a checksum that fits.
    StateImage scale = image;
    StateSegment& recurrent = scale.header.segments[1];
    const uint64_t at = codec == StateCodec::kNear ? 0 : 8;  // two matrices of four columns
    std::memset(scale.payload.data() + recurrent.offset + at, 0xff, 4);
    recurrent.checksum =
        SegmentChecksum(scale.payload.view().substr(recurrent.offset, recurrent.bytes));
    EXPECT_TRUE(refused(scale));
    EXPECT_TRUE(RestoreState(*pool, image, kFingerprint, kProfile).ok());
  }
}

TEST(StateImageTest, WindowsOfABFloat16ModelAreStoredInHalfTheBytes) {
  const StateImage full = RandomImage(HybridLayout(false), 10);
  const StateImage half = RandomImage(HybridLayout(true), 10);
  EXPECT_EQ(full.header.segments[0].bytes, 60u);
  EXPECT_EQ(half.header.segments[0].bytes, 30u);
  EXPECT_EQ(half.header.segments[0].dtype, StateDType::kBFloat16);
  EXPECT_EQ(half.header.segments[1].dtype, StateDType::kFloat32);
}

TEST(StateImageTest, CaptureFailsRatherThanRoundAWindow) {
  auto pool = MakePool(HybridLayout(true));
  const SlotRef ref = RandomSequence(*pool, 3, 1);
  const float inexact = 1.0001f;
  std::memcpy(pool->SlotBytes(ref, 5).data(), &inexact, 4);
  const absl::Status status = CaptureState(*pool, ref, kFingerprint, kProfile, kLogits).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("layer 2 window"));
}

TEST(StateImageTest, RelativesShareFullBlocks) {
  auto pool = MakePool(HybridLayout());
  SlotRef parent = RandomSequence(*pool, 600, 1);
  SlotRef fork = pool->Share(parent);
  ASSERT_TRUE(pool->PrepareWrite(fork, 1).ok());
  pool->PageBytes(fork, 3, 2)[(600 - 512) * 8 + 3] = 0x40;
  ++fork.position;
  const auto a = *CaptureState(*pool, parent, kFingerprint, kProfile, kLogits);
  const auto b = *CaptureState(*pool, fork, kFingerprint, kProfile, kLogits);
  ASSERT_EQ(a.header.kv_blocks.size(), 3u);
  EXPECT_EQ(a.header.kv_blocks[0].hash, b.header.kv_blocks[0].hash);
  EXPECT_EQ(a.header.kv_blocks[1].hash, b.header.kv_blocks[1].hash);
  EXPECT_NE(a.header.kv_blocks[2].hash, b.header.kv_blocks[2].hash);
  EXPECT_EQ(a.header.kv_blocks[2].tokens, 88);
  EXPECT_EQ(b.header.kv_blocks[2].tokens, 89);
}

TEST(StateImageTest, BlockLayoutIsLayerThenKeysThenValues) {
  auto pool = MakePool(HybridLayout());
  SlotRef ref = RandomSequence(*pool, 2, 5);
  const StateImage image = *CaptureState(*pool, ref, kFingerprint, kProfile, {});
  const auto keys = pool->PageBytes(ref, 3, 0).first(16), values = pool->PageBytes(ref, 4, 0);
  std::string expected(keys.begin(), keys.end());
  expected.append(values.begin(), values.begin() + 16);
  EXPECT_EQ(image.kv_blocks[0], expected);
  EXPECT_EQ(image.header.vocab, 0);
}

TEST(StateImageTest, AnotherModelsStateIsRefusedNamingBoth) {
  const StateImage image = RandomImage(HybridLayout(), 5);
  absl::Status status = Restore(image, HybridLayout(), "ccccccccccccccccdddd");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("aaaaaaaaaaaa"));
  EXPECT_THAT(status.message(), HasSubstr("cccccccccccc"));
  status = Restore(image, HybridLayout(), kFingerprint, "cpu-bfloat16");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("cpu-float32"));
  EXPECT_THAT(status.message(), HasSubstr("cpu-bfloat16"));
}

TEST(StateImageTest, EveryFlippedPayloadBitIsReportedWithItsSegment) {
  const StateLayout layout = HybridLayout();
  StateImage image = RandomImage(layout, 5);
  auto pool = MakePool(layout);
  for (const StateSegment& segment : image.header.segments) {
    std::string name = "last logits";
    if (segment.layer >= 0) {
      const char* kinds[] = {"window", "recurrent", "cumulative"};
      name = "layer " + std::to_string(segment.layer) + " " + kinds[static_cast<int>(segment.kind)];
    }
    for (uint64_t bit = 8 * segment.offset; bit < 8 * (segment.offset + segment.bytes); ++bit) {
      image.payload[bit / 8] ^= 1 << (bit % 8);
      const absl::Status status = RestoreState(*pool, image, kFingerprint, kProfile).status();
      ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << bit;
      ASSERT_THAT(status.message(), HasSubstr(name)) << bit;
      image.payload[bit / 8] ^= 1 << (bit % 8);
    }
  }
  EXPECT_EQ(pool->usage().slots_used, 0);
  EXPECT_TRUE(Restore(image, layout).ok());
}

TEST(StateImageTest, EveryFlippedBlockBitIsReportedWithItsBlock) {
  const StateLayout layout = HybridLayout();
  StateImage image = RandomImage(layout, 258);
  for (const size_t block : {0, 1}) {
    for (size_t bit = 0; bit < 8 * image.kv_blocks[1].size(); ++bit) {
      image.kv_blocks[block][bit / 8] ^= 1 << (bit % 8);
      const absl::Status status = Restore(image, layout);
      ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << bit;
      ASSERT_THAT(status.message(), HasSubstr("block " + std::to_string(block)));
      image.kv_blocks[block][bit / 8] ^= 1 << (bit % 8);
    }
  }
  EXPECT_TRUE(Restore(image, layout).ok());
}

TEST(StateImageTest, PartsOfTheWrongSizeAreDataLoss) {
  const StateLayout layout = HybridLayout();
  const StateImage good = RandomImage(layout, 258);
  const auto code = [&](auto change) {
    StateImage image = good;
    change(image);
    return Restore(image, layout).code();
  };
  const auto kDataLoss = absl::StatusCode::kDataLoss;
  EXPECT_EQ(code([](StateImage& i) { i.payload.text().pop_back(); }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.payload.text() += 'x'; }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.payload.text().clear(); }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.kv_blocks.pop_back(); }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.kv_blocks.emplace_back(); }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.kv_blocks[1].pop_back(); }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { std::swap(i.kv_blocks[0], i.kv_blocks[1]); }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.header.kv_blocks.clear(); }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { ++i.header.token_count; }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.header.token_count = -1; }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.header.token_count = INT64_MAX; }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.header.segments.pop_back(); }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.header.segments[1].shape[0] = 3; }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.header.segments[1].layer = 7; }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.header.vocab = 0; }), kDataLoss);
  EXPECT_EQ(code([](StateImage& i) { i.header.vocab = -4; }), kDataLoss);
  EXPECT_EQ(code([](StateImage&) {}), absl::StatusCode::kOk);
}

TEST(StateImageTest, ALayoutThatDiffersIsDataLoss) {
  EXPECT_EQ(Restore(RandomImage(HybridLayout(), 5), RecurrentLayout()).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(Restore(RandomImage(RecurrentLayout(), 5), HybridLayout()).code(),
            absl::StatusCode::kDataLoss);
}

TEST(StateImageTest, NonFiniteLastLogitsAreRefusedThoughTheChecksumFits) {
  auto pool = MakePool(RecurrentLayout());
  const SlotRef ref = RandomSequence(*pool, 3, 1);
  const std::vector<float> logits = {1, std::nanf(""), 3};
  const StateImage image = *CaptureState(*pool, ref, kFingerprint, kProfile, logits);
  EXPECT_EQ(Restore(image, RecurrentLayout()).code(), absl::StatusCode::kDataLoss);
}

TEST(StateImageTest, RestoreWithoutRoomKeepsNothing) {
  const StateImage image = RandomImage(HybridLayout(), 600);
  auto pool = MakePool(HybridLayout(), /*slots=*/2, /*pages=*/2);
  EXPECT_EQ(RestoreState(*pool, image, kFingerprint, kProfile).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(pool->usage().slots_used, 0);
  EXPECT_EQ(pool->usage().pages_used, 0);
}

}  // namespace
}  // namespace anabranch
