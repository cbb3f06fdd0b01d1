// States in fewer bytes: how far off they come back, that damage is always noticed, and that what
// was decoded is encoded to the same bytes again.
#include "runtime/state_codec.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/state_table.h"
#include "runtime/tensor_codec.h"
#include "tests/runtime/hooked_device.h"
#include "tests/runtime/test_layouts.h"

namespace anabranch {
namespace {

using ::testing::HasSubstr;

// One Mamba-2 layer, one Mamba-1 layer and one of attention, of sizes that do not divide evenly.
StateLayout SomeLayout(bool bf16) {
  const StateDType half = bf16 ? StateDType::kBFloat16 : StateDType::kFloat32;
  constexpr StateDType kFloat = StateDType::kFloat32, kDouble = StateDType::kFloat64;
  StateLayout layout;
  layout.entries.push_back({0, StateKind::kWindow, kFloat, {3, 70}, half});
  layout.entries.push_back({0, StateKind::kRecurrent, kFloat, {4, 24, 40}, kFloat});
  layout.entries.push_back({0, StateKind::kCumulative, kDouble, {4}, kDouble});
  layout.entries.push_back({1, StateKind::kKeys, half, {kKvPageTokens, 2, 24}, half});
  layout.entries.push_back({1, StateKind::kValues, half, {kKvPageTokens, 2, 24}, half});
  layout.entries.push_back({2, StateKind::kRecurrent, kFloat, {150, 16}, kFloat});
  layout.entries.push_back({2, StateKind::kCumulative, kDouble, {150}, kDouble});
  return layout;
}

// Values as states have them: every row and column of its own size.
void FillFloats(char* to, size_t count, size_t cols, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> sizes(cols);
  for (float& size : sizes) size = std::exp2(6 * normal(random));
  float row = 1;
  for (size_t i = 0; i < count; ++i) {
    if (i % cols == 0) row = std::exp2(3 * normal(random));
    const float value = normal(random) * row * sizes[i % cols];
    std::memcpy(to + 4 * i, &value, 4);
  }
}

void FillBFloat16(char* to, size_t count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < count; ++i) {
    const float value = normal(random);
    std::memcpy(to + 2 * i, reinterpret_cast<const char*>(&value) + 2, 2);
  }
}

StateImage RandomImage(const StateLayout& layout, int64_t tokens, bool bf16, uint32_t seed = 1) {
  std::mt19937 random(seed);
  StateImage image;
  image.header.fingerprint = "fingerprint";
  image.header.numerics_profile = "cpu-float32";
  image.header.token_count = tokens;
  image.header.vocab = 300;
  const auto fill = [&](StateDType dtype, char* to, size_t count, size_t cols) {
    if (dtype == StateDType::kFloat32) FillFloats(to, count, cols, random);
    if (dtype == StateDType::kBFloat16) FillBFloat16(to, count, random);
    if (dtype == StateDType::kFloat64) std::memset(to, 0x3f, 8 * count);
  };
  for (const StateEntry& entry : layout.entries) {
    if (entry.paged()) continue;
    const size_t at = image.payload.size(), count = entry.num_elements();
    image.payload.text().resize(at + count * StateDTypeBytes(entry.stored_dtype));
    fill(entry.stored_dtype, image.payload.data() + at, count, entry.shape.back());
  }
  image.payload.text().resize(image.payload.size() + 1200);
  FillFloats(image.payload.data() + image.payload.size() - 1200, 300, 300, random);
  for (int64_t start = 0; start < tokens; start += kKvPageTokens) {
    const int64_t count = std::min<int64_t>(tokens - start, kKvPageTokens);
    std::string block(layout.kv_page_bytes() / kKvPageTokens * count, '\0');
    fill(bf16 ? StateDType::kBFloat16 : StateDType::kFloat32, block.data(),
         block.size() / (bf16 ? 2 : 4), 48);
    image.kv_blocks.push_back(std::move(block));
  }
  EXPECT_TRUE(SealState(layout, image).ok());
  return image;
}

std::vector<float> Floats(absl::string_view bytes) {
  std::vector<float> values(bytes.size() / 4);
  std::memcpy(values.data(), bytes.data(), values.size() * 4);
  return values;
}

double RelativeError(absl::string_view is, absl::string_view was) {
  const std::vector<float> a = Floats(is), b = Floats(was);
  double off = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    off += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  return std::sqrt(off / norm);
}

uint64_t SizeOf(const StateImage& image) {
  uint64_t size = image.payload.size();
  for (const std::string& block : image.kv_blocks) size += block.size();
  return size;
}

class StateCodecTest : public ::testing::TestWithParam<std::tuple<StateCodec, bool>> {
 protected:
  StateCodec codec() const { return std::get<0>(GetParam()); }
  bool bf16() const { return std::get<1>(GetParam()); }
  const StateLayout layout_ = SomeLayout(std::get<1>(GetParam()));
  StateImage Encoded(const StateImage& image) const {
    return *EncodeState(layout_, image, codec());
  }
};

TEST_P(StateCodecTest, ComesBackAsFarOffAsItsHeaderSays) {
  const double bound =
      codec() == StateCodec::kNear ? 1e-4 : 6e-2;  // columns of very different sizes
  for (const int64_t tokens : {0, 3, 256, 700}) {
    const StateImage image = RandomImage(layout_, tokens, bf16());
    const StateImage stored = Encoded(image);
    const auto header = ParseStateHeader(SerializeStateHeader(stored.header));
    ASSERT_TRUE(header.ok()) << header.status();
    EXPECT_EQ(header->codec, codec());
    EXPECT_LE(LargestError(*header), bound);
    StateImage parsed = stored;
    parsed.header = *header;
    const auto decoded = DecodeState(layout_, parsed);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_TRUE(CheckState(*decoded, layout_, "fingerprint", "cpu-float32").ok());
    for (size_t i = 0; i < image.header.segments.size(); ++i) {
      const StateSegment& segment = image.header.segments[i];
      const auto is = decoded->payload.view().substr(segment.offset, segment.bytes);
      const auto was = image.payload.view().substr(segment.offset, segment.bytes);
      if (segment.dtype != StateDType::kFloat32) {
        EXPECT_EQ(is, was);
        continue;
      }
      EXPECT_NEAR(RelativeError(is, was), header->segments[i].error, 1e-3 * bound);
    }
    if (tokens > 0 && !bf16()) {
      EXPECT_LE(RelativeError(decoded->kv_blocks[0], image.kv_blocks[0]), bound);
    }
  }
}

TEST_P(StateCodecTest, SaysThatItWentThroughALossyCodec) {
  const StateImage image = RandomImage(layout_, 300, bf16());
  StateImage decoded = *DecodeState(layout_, Encoded(image));
  EXPECT_EQ(decoded.header.origin, (StateOrigin{1, codec(), 300}));
  EXPECT_EQ(decoded.header.codec, StateCodec::kExact);
  decoded = *DecodeState(layout_, Encoded(decoded));
  EXPECT_EQ(decoded.header.origin.lossy_restores, 2u);
  // An exact state says so, too.
  const std::string bytes = SerializeStateHeader(decoded.header);
  EXPECT_EQ(ParseStateHeader(bytes)->origin, decoded.header.origin);
  EXPECT_EQ(SerializeStateHeader(*ParseStateHeader(bytes)), bytes);
}

TEST_P(StateCodecTest, WhatWasDecodedIsEncodedToTheSameBlocksAgain) {
  if (bf16() && codec() == StateCodec::kCompact) GTEST_SKIP() << "rounded to bfloat16 between";
  for (uint32_t seed = 0; seed < 20; ++seed) {
    const StateImage once = Encoded(RandomImage(layout_, 300, bf16(), seed));
    const StateImage twice = Encoded(*DecodeState(layout_, once));
    EXPECT_EQ(once.kv_blocks, twice.kv_blocks);
    if (codec() == StateCodec::kNear) {
      EXPECT_TRUE(once.payload == twice.payload);
    }
  }
}

TEST_P(StateCodecTest, EveryFlippedBitIsNoticedAndNamed) {
  const StateImage stored = Encoded(RandomImage(layout_, 300, bf16()));
  for (size_t bit = 0; bit < std::min<size_t>(stored.payload.size(), 4096) * 8; ++bit) {
    StateImage damaged = stored;
    damaged.payload[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    const absl::Status status = DecodeState(layout_, damaged).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << bit;
    ASSERT_THAT(std::string(status.message()), HasSubstr("layer ")) << bit;
  }
  const std::string header = SerializeStateHeader(stored.header);
  for (size_t bit = 0; bit < std::min<size_t>(header.size(), 4096) * 8; ++bit) {
    std::string damaged = header;
    damaged[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    ASSERT_FALSE(ParseStateHeader(damaged).ok()) << bit;
  }
  for (size_t block = 0; block < stored.kv_blocks.size(); ++block) {
    for (size_t bit = 0; bit < stored.kv_blocks[block].size() * 8; bit += 97) {
      StateImage damaged = stored;
      damaged.kv_blocks[block][bit / 8] ^= static_cast<char>(1 << (bit % 8));
      const absl::Status status = DecodeState(layout_, damaged).status();
      ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss);
      ASSERT_THAT(std::string(status.message()), HasSubstr("keys and values"));
    }
  }
}

TEST_P(StateCodecTest, TruncatedOrForeignBytesAreRefused) {
  const StateImage stored = Encoded(RandomImage(layout_, 300, bf16()));
  for (size_t size = 0; size < stored.payload.size(); size += 1 + size / 50) {
    StateImage cut = stored;
    cut.payload.text().resize(size);
    ASSERT_EQ(DecodeState(layout_, cut).status().code(), absl::StatusCode::kDataLoss) << size;
  }
  StateImage longer = stored;
  longer.payload.text() += 'x';
  EXPECT_EQ(DecodeState(layout_, longer).status().code(), absl::StatusCode::kDataLoss);
  StateImage fewer = stored;
  fewer.kv_blocks.pop_back();
  EXPECT_EQ(DecodeState(layout_, fewer).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(DecodeState(testing::HybridLayout(), stored).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_P(StateCodecTest, ATensorThatNoFormCanHoldStaysAsItIs) {
  StateImage image = RandomImage(layout_, 3, bf16());
  const StateSegment recurrent = image.header.segments[1];
  const float odd = std::numeric_limits<float>::infinity();
  std::memcpy(image.payload.data() + recurrent.offset, &odd, 4);
  ASSERT_TRUE(SealState(layout_, image).ok());
  const StateImage stored = Encoded(image);
  EXPECT_EQ(stored.header.segments[1].encoding, StateEncoding::kPlain);
  const StateImage decoded = *DecodeState(layout_, stored);
  EXPECT_EQ(decoded.payload.view().substr(recurrent.offset, recurrent.bytes),
            image.payload.view().substr(recurrent.offset, recurrent.bytes));
}

INSTANTIATE_TEST_SUITE_P(Codecs, StateCodecTest,
                         ::testing::Combine(::testing::Values(StateCodec::kNear,
                                                              StateCodec::kCompact),
                                            ::testing::Bool()),
                         [](const auto& info) {
                           return std::string(StateCodecName(std::get<0>(info.param))) +
                                  (std::get<1>(info.param) ? "BFloat16" : "Float32");
                         });

TEST(StateCodecSizesTest, TakeAboutAHalfAndAQuarter) {
  StateLayout layout;
  layout.entries.push_back(
      {0, StateKind::kRecurrent, StateDType::kFloat32, {16, 64, 128}, StateDType::kFloat32});
  const StateImage image = RandomImage(layout, 0, false);
  const auto ratio = [&](StateCodec codec) {
    return static_cast<double>(SizeOf(image)) /
           static_cast<double>(SizeOf(*EncodeState(layout, image, codec)));
  };
  EXPECT_GT(ratio(StateCodec::kNear), 1.95);
  EXPECT_GT(ratio(StateCodec::kCompact), 3.8);
  EXPECT_EQ(EncodeState(layout, image, StateCodec::kExact)->payload, image.payload);
  EXPECT_EQ(EncodeState(layout, image, StateCodec::kArchive).status().code(),
            absl::StatusCode::kInvalidArgument);
}

std::string WithSize(const std::string& bytes) {
  const uint64_t size = bytes.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof(size)) + bytes;
}

std::string TakeSized(std::string& file) {
  uint64_t size = 0;
  if (file.size() < sizeof(size)) return "";
  std::memcpy(&size, file.data(), sizeof(size));
  std::string bytes = file.substr(sizeof(size), size);
  file.erase(0, sizeof(size) + bytes.size());
  return bytes;
}

// The image as a device that codes states captures it.
StateImage CodedOnADevice(const StateLayout& layout, const StateImage& exact, StateCodec codec) {
  auto device = std::make_shared<testing::HookedDevice>();
  device->set_codes(true);
  const auto pool = *SlotPool::Create(layout, {}, device);
  const auto restored = *RestoreState(*pool, exact, "fingerprint", "cpu-float32");
  return *CaptureState(*pool, restored.ref, "fingerprint", "cpu-float32", restored.last_logits,
                       codec);
}

// tests/golden/states: header, payload and blocks of states as versions of this program wrote them,
// each with its size before it, and at last the checksum of what they decode to. A file is written
// once, when a format is new (ANABRANCH_UPDATE_GOLDEN=1), and never changes.
TEST(GoldenStatesTest, EveryStateThatWasEverWrittenStaysReadable) {
  const StateLayout layout = SomeLayout(false);
  for (const auto& [name, codec] : {std::pair("version1-exact", StateCodec::kExact),
                                    std::pair("version2-exact", StateCodec::kExact),
                                    std::pair("version3-near", StateCodec::kNear),
                                    std::pair("version3-compact", StateCodec::kCompact),
                                    std::pair("version4-compact", StateCodec::kCompact)}) {
    const std::string path = absl::StrCat(ANABRANCH_GOLDEN_DIR, "/states/", name, ".state");
    if (std::getenv("ANABRANCH_UPDATE_GOLDEN") != nullptr && !std::ifstream(path)) {
      StateImage image = RandomImage(layout, 30, false);
      if (absl::StrContains(name, "2")) image.header.inner_sum = {1, 2};
      const StateImage stored = absl::StrContains(name, "4") ? CodedOnADevice(layout, image, codec)
                                                             : *EncodeState(layout, image, codec);
      std::string bytes = WithSize(SerializeStateHeader(stored.header)) +
                          WithSize(std::string(stored.payload.view()));
      for (const std::string& block : stored.kv_blocks) bytes += WithSize(block);
      const std::string decoded = std::move(DecodeState(layout, stored)->payload).TakeString();
      std::ofstream(path, std::ios::binary)
          << bytes << WithSize(absl::StrCat(SegmentChecksum(decoded)));
    }
    std::ostringstream content;
    content << std::ifstream(path, std::ios::binary).rdbuf();
    std::string file = content.str();
    StateImage stored;
    const auto header = ParseStateHeader(TakeSized(file));
    ASSERT_TRUE(header.ok()) << path << ": " << header.status();
    EXPECT_EQ(header->codec, codec);
    stored.header = *header;
    stored.payload = TakeSized(file);
    for (size_t i = 0; i < header->kv_blocks.size(); ++i) {
      stored.kv_blocks.push_back(TakeSized(file));
    }
    const auto decoded = DecodeState(layout, stored);
    ASSERT_TRUE(decoded.ok()) << path << ": " << decoded.status();
    EXPECT_TRUE(CheckState(*decoded, layout, "fingerprint", "cpu-float32").ok());
    EXPECT_EQ(absl::StrCat(SegmentChecksum(decoded->payload)), TakeSized(file)) << path;
  }
}

TEST(TensorCodecTest, HoldsExtremesToHalfAStep) {
  for (const float size : {0.0f, 1e-45f, 1e-38f, 1e-20f, 1.0f, 1e30f, 1.6e38f}) {
    std::vector<float> values = {size, -size, size / 3, 0, -size / 7};
    std::string bytes;
    CodecError error;
    ASSERT_TRUE(EncodeGroups(values, bytes, error));
    std::vector<float> back(values.size());
    ASSERT_TRUE(DecodeGroups(bytes, absl::MakeSpan(back)).ok());
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(back[i], values[i], size / 32000 + 1e-38) << size;
    }
  }
  std::string bytes;
  CodecError error;
  EXPECT_FALSE(EncodeGroups({1, NAN}, bytes, error));
  EXPECT_FALSE(EncodeMatrices({1, INFINITY}, {1, 2}, bytes, error));
  EXPECT_FALSE(EncodeScaled({1, 3e38f}, {1, 2}, ScaledBy::kRows, bytes, error));
  EXPECT_TRUE(bytes.empty());
}

TEST(TensorCodecTest, RefusesScalesThatAreNone) {
  for (const float scale : {0.0f, -1.0f, INFINITY, NAN, 3e38f}) {
    std::string bytes(4 + 2 * 3, '\0');
    std::memcpy(bytes.data(), &scale, 4);
    std::vector<float> values(3);
    EXPECT_EQ(DecodeGroups(bytes, absl::MakeSpan(values)).code(), absl::StatusCode::kDataLoss);
  }
}

}  // namespace
}  // namespace anabranch
