#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/state_image.h"
#include "xxhash.h"

namespace anabranch {
namespace {

using ::testing::HasSubstr;

StateHeader SmallHeader() {
  StateHeader header;
  header.fingerprint = std::string(64, 'f');
  header.numerics_profile = "cpu-float32";
  header.token_count = 300;
  header.vocab = 16;
  StateSegment window;
  window.kind = StateKind::kWindow;
  window.dtype = StateDType::kBFloat16;
  window.shape = {5, 3};
  window.bytes = 30;
  window.checksum = 0x1122334455667788;
  StateSegment t;
  t.layer = 4;
  t.kind = StateKind::kCumulative;
  t.dtype = StateDType::kFloat64;
  t.shape = {2};
  t.offset = 30;
  t.bytes = 16;
  StateSegment logits;
  logits.layer = kLastLogitsLayer;
  logits.shape = {16};
  logits.offset = 46;
  logits.bytes = 64;
  header.segments = {window, t, logits};
  header.kv_blocks = {{std::string(64, 'a'), 256, 4096}, {std::string(64, '0'), 44, 704}};
  return header;
}

absl::StatusCode ParseCode(const std::string& bytes) {
  return ParseStateHeader(bytes).status().code();
}

// The header with a change and a checksum that fits it.
std::string Resealed(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  const uint32_t length = bytes.size() + 8;
  std::memcpy(bytes.data() + 12, &length, 4);
  const uint64_t checksum = XXH3_64bits(bytes.data(), bytes.size());
  bytes.append(reinterpret_cast<const char*>(&checksum), 8);
  return bytes;
}

TEST(StateHeaderTest, SurvivesTheWayThroughBytes) {
  const StateHeader header = SmallHeader();
  const std::string bytes = SerializeStateHeader(header);
  const auto parsed = ParseStateHeader(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->fingerprint, header.fingerprint);
  EXPECT_EQ(parsed->numerics_profile, header.numerics_profile);
  EXPECT_EQ(parsed->token_count, 300);
  EXPECT_EQ(parsed->vocab, 16);
  ASSERT_EQ(parsed->segments.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(parsed->segments[i].layer, header.segments[i].layer);
    EXPECT_EQ(parsed->segments[i].kind, header.segments[i].kind);
    EXPECT_EQ(parsed->segments[i].dtype, header.segments[i].dtype);
    EXPECT_EQ(parsed->segments[i].shape, header.segments[i].shape);
    EXPECT_EQ(parsed->segments[i].offset, header.segments[i].offset);
    EXPECT_EQ(parsed->segments[i].bytes, header.segments[i].bytes);
    EXPECT_EQ(parsed->segments[i].checksum, header.segments[i].checksum);
  }
  ASSERT_EQ(parsed->kv_blocks.size(), 2u);
  EXPECT_EQ(parsed->kv_blocks[0].hash, header.kv_blocks[0].hash);
  EXPECT_EQ(parsed->kv_blocks[1].tokens, 44);
  EXPECT_EQ(parsed->kv_blocks[1].bytes, 704u);
  EXPECT_EQ(SerializeStateHeader(*parsed), bytes);
}

// The bytes of version 1 never change: states in libraries depend on them.
TEST(StateHeaderTest, BytesOfVersionOneAreFixed) {
  const std::string bytes = SerializeStateHeader(SmallHeader());
  EXPECT_EQ(bytes.size(), 343u);
  EXPECT_EQ(bytes.substr(0, 8), std::string("ABSTATE\0", 8));
  EXPECT_EQ(bytes.substr(8, 4), std::string("\1\0\0\0", 4));
  EXPECT_EQ(bytes.substr(12, 4), std::string("\x57\1\0\0", 4));
  EXPECT_EQ(bytes.substr(16, 2), std::string("\x40\0", 2));
  EXPECT_EQ(XXH3_64bits(bytes.data(), bytes.size()), 5074218082844789828u);
}

StateHeader EncodedHeader() {
  StateHeader header = SmallHeader();
  header.codec = StateCodec::kCompact;
  header.origin = {2, StateCodec::kNear, 256};
  header.kv_error = 0.25;
  header.inner_sum = {1, -2};
  StateSegment& logits = header.segments[2];
  logits.encoding = StateEncoding::kGroups16;
  logits.bytes = 4 + 2 * 16;
  logits.error = 0.5;
  return header;
}

// So do those of version 3.
TEST(StateHeaderTest, BytesOfVersionThreeAreFixed) {
  const std::string bytes = SerializeStateHeader(EncodedHeader());
  EXPECT_EQ(bytes.substr(8, 4), std::string("\3\0\0\0", 4));
  EXPECT_EQ(bytes.size(), 343u + 3 * 5 + 20 + 4 + 2 * 4);
  EXPECT_EQ(XXH3_64bits(bytes.data(), bytes.size()), 9572166518087601771u);
  const auto parsed = ParseStateHeader(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->codec, StateCodec::kCompact);
  EXPECT_EQ(parsed->origin, (StateOrigin{2, StateCodec::kNear, 256}));
  EXPECT_EQ(parsed->kv_error, 0.25f);
  EXPECT_EQ(parsed->segments[2].encoding, StateEncoding::kGroups16);
  EXPECT_EQ(parsed->segments[2].error, 0.5f);
  EXPECT_EQ(SerializeStateHeader(*parsed), bytes);
}

// A state with codes that are not compressed is of version 4, and nothing else is.
TEST(StateHeaderTest, PackedCodesMakeVersionFour) {
  StateHeader header = EncodedHeader();
  StateSegment recurrent;
  recurrent.layer = 5;
  recurrent.shape = {2, 3, 4};
  recurrent.offset = 46;
  recurrent.encoding = StateEncoding::kPacked8;
  recurrent.bytes = 2 * 4 + 6 * 2 + 24;
  header.segments.insert(header.segments.begin() + 2, recurrent);
  header.segments.back().offset = 46 + recurrent.bytes;
  const std::string bytes = SerializeStateHeader(header);
  EXPECT_EQ(bytes.substr(8, 4), std::string("\4\0\0\0", 4));
  const auto parsed = ParseStateHeader(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->segments[2].encoding, StateEncoding::kPacked8);
  EXPECT_EQ(SerializeStateHeader(*parsed), bytes);
  std::string older = bytes, newer = SerializeStateHeader(EncodedHeader());
  older[8] = 3, newer[8] = 4;
  EXPECT_EQ(ParseCode(Resealed(older)), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ParseCode(Resealed(newer)), absl::StatusCode::kDataLoss);
  --header.segments[2].bytes;
  --header.segments[3].offset;
  EXPECT_EQ(ParseCode(SerializeStateHeader(header)), absl::StatusCode::kDataLoss);
}

TEST(StateHeaderTest, CodecsThatContradictThemselvesAreRefused) {
  const auto message = [](auto change) {
    StateHeader header = EncodedHeader();
    change(header);
    const auto parsed = ParseStateHeader(SerializeStateHeader(header));
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kDataLoss);
    return std::string(parsed.status().message());
  };
  EXPECT_THAT(message([](StateHeader& h) { h.codec = StateCodec::kExact; }), HasSubstr("encoded"));
  EXPECT_THAT(message([](StateHeader& h) { h.codec = StateCodec::kArchive; }), HasSubstr("codec"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[2].bytes = 35; }), HasSubstr("bytes"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[2].error = -1; }), HasSubstr("error"));
  EXPECT_THAT(message([](StateHeader& h) { h.kv_error = NAN; }), HasSubstr("error"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[0].encoding = StateEncoding::kGroups16; }),
              HasSubstr("bytes"));
  EXPECT_THAT(message([](StateHeader& h) { h.origin.restored_at = 301; }), HasSubstr("went on"));
  EXPECT_THAT(message([](StateHeader& h) { h.origin.lossy_restores = 0; }), HasSubstr("went on"));
  EXPECT_THAT(message([](StateHeader& h) { h.origin.lossy_restores = ~0u; }), HasSubstr("went on"));
}

// Codes and the scales of groups of 16; a version of its own, of exact states, too.
TEST(StateHeaderTest, RowsOfInt8AreWholeGroups) {
  StateHeader header = SmallHeader();
  StateSegment& t = header.segments[1];
  t.kind = StateKind::kRecurrent;
  t.dtype = StateDType::kInt8;
  t.shape = {3, 32};
  t.bytes = 3 * (32 + 2 * 2);
  header.segments[2].offset = 30 + t.bytes;
  const std::string bytes = SerializeStateHeader(header);
  EXPECT_EQ(bytes.substr(8, 4), std::string("\5\0\0\0", 4));
  const auto parsed = ParseStateHeader(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->segments[1].dtype, StateDType::kInt8);
  EXPECT_EQ(SerializeStateHeader(*parsed), bytes);

  t.shape = {4, 24};  // as many elements
  EXPECT_EQ(ParseCode(SerializeStateHeader(header)), absl::StatusCode::kDataLoss);
  t.shape = {3, 32}, t.bytes = 3 * 32;  // no scales
  header.segments[2].offset = 30 + t.bytes;
  EXPECT_EQ(ParseCode(SerializeStateHeader(header)), absl::StatusCode::kDataLoss);
  std::string earlier = bytes;
  earlier[8] = 4;
  EXPECT_EQ(ParseCode(Resealed(earlier)), absl::StatusCode::kDataLoss);
  std::string without = SerializeStateHeader(EncodedHeader());
  without[8] = 5;
  EXPECT_EQ(ParseCode(Resealed(without)), absl::StatusCode::kDataLoss);
}

TEST(StateHeaderTest, EveryTruncationIsDetected) {
  const std::string bytes = SerializeStateHeader(SmallHeader());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_EQ(ParseCode(bytes.substr(0, length)), absl::StatusCode::kDataLoss) << length;
    if (length > 24) {  // and behind a checksum that fits
      EXPECT_EQ(ParseCode(Resealed(bytes.substr(0, length))), absl::StatusCode::kDataLoss)
          << length;
    }
  }
  EXPECT_EQ(ParseCode(bytes + '\0'), absl::StatusCode::kDataLoss);
}

TEST(StateHeaderTest, EveryFlippedBitIsDetected) {
  std::string bytes = SerializeStateHeader(SmallHeader());
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= 1 << (bit % 8);
    // Of the changed versions 3 and 5 exist, and then the checksum says so.
    const bool version = bit >= 64 && bit < 96 && bit != 65 && bit != 66;
    EXPECT_EQ(ParseCode(bytes),
              version ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kDataLoss)
        << bit;
    bytes[bit / 8] ^= 1 << (bit % 8);
  }
}

// A valid checksum does not make the content valid.
TEST(StateHeaderTest, ContentOutOfRangeIsRefusedBehindAValidChecksum) {
  const auto message = [](auto change) {
    StateHeader header = SmallHeader();
    change(header);
    const auto parsed = ParseStateHeader(SerializeStateHeader(header));
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kDataLoss);
    return std::string(parsed.status().message());
  };
  EXPECT_THAT(message([](StateHeader& h) { h.token_count = -1; }), HasSubstr("token count"));
  EXPECT_THAT(message([](StateHeader& h) { h.token_count = INT64_MAX; }), HasSubstr("token count"));
  EXPECT_THAT(message([](StateHeader& h) { h.token_count = 301; }), HasSubstr("cover"));
  EXPECT_THAT(message([](StateHeader& h) { h.kv_blocks[0].tokens = 255; }), HasSubstr("cover"));
  EXPECT_THAT(message([](StateHeader& h) { h.kv_blocks[1].tokens = -44; }), HasSubstr("cover"));
  EXPECT_THAT(message([](StateHeader& h) { h.kv_blocks[1].bytes = 0; }), HasSubstr("size"));
  EXPECT_THAT(message([](StateHeader& h) { h.kv_blocks[1].bytes = UINT64_MAX; }),
              HasSubstr("size"));
  EXPECT_THAT(message([](StateHeader& h) { h.vocab = -1; }), HasSubstr("vocabulary"));
  EXPECT_THAT(message([](StateHeader& h) { h.vocab = 17; }), HasSubstr("last logits"));
  EXPECT_THAT(message([](StateHeader& h) { h.vocab = 0; }), HasSubstr("last logits"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments.pop_back(); }), HasSubstr("last logits"));
  EXPECT_THAT(message([](StateHeader& h) { h.codec = static_cast<StateCodec>(9); }),
              HasSubstr("codec"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[0].kind = StateKind::kKeys; }),
              HasSubstr("kind"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[0].layer = -2; }), HasSubstr("layer"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[0].bytes = 31; }), HasSubstr("shape"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[0].shape = {-5, -3}; }), HasSubstr("shape"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[0].shape = {}; }), HasSubstr("rank"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[0].shape.assign(9, 1); }), HasSubstr("rank"));
  EXPECT_THAT(message([](StateHeader& h) {
                h.segments[0].shape = {int64_t{1} << 62, int64_t{1} << 62};
              }),
              HasSubstr("shape"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[1].offset = 31; }), HasSubstr("hole"));
  EXPECT_THAT(message([](StateHeader& h) { h.segments[1].offset = 29; }), HasSubstr("hole"));
  EXPECT_THAT(message([](StateHeader& h) { h.fingerprint.assign(257, 'f'); }),
              HasSubstr("fingerprint"));
}

// A count says four billion; nothing may be allocated for it.
TEST(StateHeaderTest, HugeCountsAreRefusedBeforeAllocation) {
  const StateHeader header = SmallHeader();
  const std::string bytes = SerializeStateHeader(header);
  const size_t segment_count = 16 + 2 + 64 + 2 + 11 + 8 + 4 + 4;
  uint32_t count;
  std::memcpy(&count, bytes.data() + segment_count, 4);
  ASSERT_EQ(count, 3u);
  for (const uint32_t bad : {4u, 1u << 16, 1u << 31, ~0u}) {
    std::string changed = bytes;
    std::memcpy(changed.data() + segment_count, &bad, 4);
    EXPECT_EQ(ParseCode(Resealed(changed)), absl::StatusCode::kDataLoss) << bad;
  }
  const size_t block_count = bytes.size() - 8 - 2 * 44 - 4;
  std::memcpy(&count, bytes.data() + block_count, 4);
  ASSERT_EQ(count, 2u);
  for (const uint32_t bad : {0u, 1u, 3u, 1u << 22, ~0u}) {
    std::string changed = bytes;
    std::memcpy(changed.data() + block_count, &bad, 4);
    EXPECT_EQ(ParseCode(Resealed(changed)), absl::StatusCode::kDataLoss) << bad;
  }
}

}  // namespace
}  // namespace anabranch
