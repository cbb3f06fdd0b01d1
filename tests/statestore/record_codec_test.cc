// Records as bytes: round trips, and every kind of wrong bytes. Also keys, names and page tokens:
// everything here is pure and quick.
#include "statestore/record_codec.h"

#include <xxhash.h>

#include <random>

#include "statestore/byte_coding.h"
#include "statestore/key_schema.h"
#include "statestore/names.h"
#include "statestore/overlay.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

constexpr char kKey[] = "acme.key";

StoredState FullState() {
  StoredState state;
  state.record = MakeState({1, 2, 2147483647});
  state.record.parents = {state.record.id, "second"};
  state.record.operation = StateOperation::kMerge;
  state.record.operation_params = "mean";
  state.record.blob_hashes = {"h1", "h2"};
  state.record.blob_bytes = uint64_t{1} << 40;
  state.record.payload_bytes = 77;
  state.record.payload_checksum = ~uint64_t{0};
  state.record.created = absl::FromUnixNanos(-5);
  state.record.labels = {{"a", ""}, {"b", std::string("\0x", 2)}};
  state.record.etag = 1234567;
  state.record.pinned = true;
  state.record.codec = StateCodec::kCompact;
  state.record.keep_codec = true;
  state.record.exact_bytes = uint64_t{1} << 41;
  state.record.codec_error = 0.125;
  state.record.lossy_restores = 7;
  state.prefix_hash = std::string(16, 'h');
  return state;
}

// A sealed value with any body: what gets behind the checksum.
std::string Sealed(const std::string& body) {
  const uint64_t seed = XXH3_64bits(kKey, sizeof(kKey) - 1);
  ByteWriter writer;
  writer.Raw(body);
  writer.Fixed64(XXH3_64bits_withSeed(body.data(), body.size(), seed));
  return std::move(writer).Take();
}

// Decodes with every decoder; they may fail, and must not crash or accept what is not canonical.
int CountAccepted(const std::string& value) {
  int accepted = 0;
  if (const auto state = DecodeState(kKey, value); state.ok()) {
    EXPECT_EQ(EncodeState(kKey, *state), value);
    ++accepted;
  }
  accepted += DecodeRef(kKey, value).ok() + DecodeSession(kKey, value).ok() +
              DecodeLogBounds(kKey, value).ok() + DecodeTokens(kKey, value).ok() +
              DecodeAnswer(kKey, value).ok() + DecodeBlob(kKey, value).ok() +
              DecodeNumber(kKey, value).ok() + DecodeBytes(kKey, value).ok() +
              DecodePayloadPart(kKey, 7, value).ok();
  return accepted;
}

TEST(RecordCodecTest, ASessionKeepsItsBase) {
  SessionRecord session;
  session.head_state = "head";
  session.head_position = 9;
  session.base = {"core", {{"skills/sql", "st-1", 0.5}, {"st-2", "st-2", 1}}, "base", 7};
  const std::string value = EncodeSession(kKey, session);
  EXPECT_EQ(DecodeSession(kKey, value).value().base, session.base);
  EXPECT_EQ(DecodeSession(kKey, value).value().checkpoints, CheckpointPolicy());
  session.checkpoints.codec = StateCodec::kNear;
  const SessionRecord both = DecodeSession(kKey, EncodeSession(kKey, session)).value();
  EXPECT_EQ(both.base, session.base);
  EXPECT_EQ(both.checkpoints, session.checkpoints);
  session.base.aux[0].weight = 0;
  EXPECT_FALSE(DecodeSession(kKey, EncodeSession(kKey, session)).ok());
}

TEST(RecordCodecTest, StateKeepsEveryField) {
  const StoredState state = FullState();
  const StoredState decoded = DecodeState(kKey, EncodeState(kKey, state)).value();
  EXPECT_EQ(EncodeState(kKey, decoded), EncodeState(kKey, state));
  EXPECT_EQ(decoded.record.parents, state.record.parents);
  EXPECT_EQ(decoded.record.span_tokens, state.record.span_tokens);
  EXPECT_EQ(decoded.record.created, state.record.created);
  EXPECT_EQ(decoded.record.expires, absl::InfiniteFuture());
  EXPECT_EQ(decoded.record.labels, state.record.labels);
  EXPECT_EQ(decoded.record.payload_checksum, state.record.payload_checksum);
  EXPECT_EQ(decoded.prefix_hash, state.prefix_hash);
  EXPECT_EQ(decoded.record.codec, StateCodec::kCompact);
  EXPECT_TRUE(decoded.record.keep_codec);
  EXPECT_EQ(decoded.record.exact_bytes, state.record.exact_bytes);
  EXPECT_EQ(decoded.record.codec_error, 0.125f);
  EXPECT_EQ(decoded.record.lossy_restores, 7u);
}

TEST(RecordCodecTest, TheRecordOfAnExactStateIsThatOfEarlierVersions) {
  StoredState state = FullState();
  const size_t with_codec = EncodeState(kKey, state).size();
  state.record.codec = StateCodec::kExact;
  state.record.keep_codec = false;
  state.record.exact_bytes = state.record.lossy_restores = 0;
  state.record.codec_error = 0;
  EXPECT_EQ(EncodeState(kKey, state).size(), with_codec - 1 - 6 - 4 - 1);
}

TEST(RecordCodecTest, ARecordSaysWhetherItsPayloadIsInParts) {
  StoredState state = FullState();
  const std::string whole = EncodeState(kKey, state);
  state.record.payload_part_bytes = 76;
  const std::string parts = EncodeState(kKey, state);
  EXPECT_EQ(parts.size(), whole.size() + 1);
  EXPECT_EQ(DecodeState(kKey, whole)->record.payload_part_bytes, 0u);
  EXPECT_EQ(DecodeState(kKey, parts)->record.payload_part_bytes, 76u);
  state.record.payload_part_bytes = 77;  // not more than one
  EXPECT_FALSE(DecodeState(kKey, EncodeState(kKey, state)).ok());
  state.record.payload_bytes = kMaxPayloadParts + 1;
  state.record.payload_part_bytes = 1;  // more than any has
  EXPECT_FALSE(DecodeState(kKey, EncodeState(kKey, state)).ok());
}

TEST(RecordCodecTest, APartIsOfItsKeyAndItsPayload) {
  const PayloadPartFrame frame = FramePayloadPart(kKey, 7, "bytes");
  const std::string value = frame.before + "bytes" + frame.behind;
  EXPECT_EQ(DecodePayloadPart(kKey, 7, value).value(), "bytes");
  EXPECT_FALSE(DecodePayloadPart("acme.other", 7, value).ok());
  EXPECT_FALSE(DecodePayloadPart(kKey, 8, value).ok());
  EXPECT_FALSE(DecodePayloadPart(kKey, 0, Sealed(std::string("\x0b\x01\0\0", 4))).ok());
}

TEST(RecordCodecTest, ASessionKeepsTheCodecThatItChose) {
  SessionRecord session = NewSession("chat").record;
  for (const StateCodec codec : {StateCodec::kExact, StateCodec::kNear, StateCodec::kCompact}) {
    session.checkpoints.codec = codec;
    EXPECT_EQ(DecodeSession(kKey, EncodeSession(kKey, session))->checkpoints.codec, codec);
  }
}

TEST(RecordCodecTest, EveryFlippedBitIsDataLoss) {
  const std::string value = EncodeState(kKey, FullState());
  for (size_t bit = 0; bit < value.size() * 8; ++bit) {
    std::string flipped = value;
    flipped[bit / 8] ^= static_cast<char>(1 << (bit % 8));
    ASSERT_EQ(DecodeState(kKey, flipped).status().code(), absl::StatusCode::kDataLoss) << bit;
  }
}

TEST(RecordCodecTest, EveryTruncationAndAnyTailIsDataLoss) {
  const std::string value = EncodeState(kKey, FullState());
  for (size_t size = 0; size < value.size(); ++size) {
    ASSERT_TRUE(absl::IsDataLoss(DecodeState(kKey, value.substr(0, size)).status())) << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(DecodeState(kKey, value + "x").status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeState("acme.other", value).status()));
  EXPECT_TRUE(absl::IsDataLoss(DecodeRef(kKey, value).status()));
}

TEST(RecordCodecTest, BodiesBehindAGoodChecksumAreStillChecked) {
  const std::string good = EncodeState(kKey, FullState());
  const std::string body = good.substr(0, good.size() - 8);
  ASSERT_EQ(CountAccepted(Sealed(body)), 1);
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string wrong = body;
    for (unsigned edits = 1 + random() % 3; edits > 0; --edits) {
      wrong[random() % wrong.size()] = static_cast<char>(random());
    }
    if (random() % 4 == 0) wrong.resize(random() % wrong.size());
    if (!wrong.empty()) wrong[0] = static_cast<char>(1 + random() % 9);
    refused += CountAccepted(Sealed(wrong)) == 0;
  }
  EXPECT_GT(refused, 1000);
}

TEST(RecordCodecTest, HugeCountsAreRefusedBeforeAllocating) {
  const std::string huge("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10);
  for (char kind = 1; kind <= 6; ++kind) {
    const std::string body = std::string(1, kind) + '\x01' + huge;
    EXPECT_EQ(CountAccepted(Sealed(body)), 0);
  }
}

TEST(RecordCodecTest, NewerRecordVersionIsNamed) {
  EXPECT_THAT(DecodeNumber(kKey, Sealed(std::string("\x08\x02 12345678", 11))).status(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "version 2"));
}

TEST(StateIdTest, NeverChangesForAContent) {
  // Golden: ids are on disks everywhere.
  EXPECT_EQ(MakeState({1, 2, 3}).id, "st-fe90c3ffa17027508562db4f303977a6fb8274cb");
}

TEST(StateIdTest, DependsOnEveryPart) {
  const StateRecord base = MakeState({1, 2});
  StateRecord other = base;
  other.tenant = "b";
  EXPECT_NE(StateId(other), base.id);
  other = base;
  other.operation_params = "x";
  EXPECT_NE(StateId(other), base.id);
  other = base;
  other.parents = {base.id};
  EXPECT_NE(StateId(other), base.id);
  // Parts cannot run into each other.
  other = base;
  other.fingerprint = base.fingerprint + base.numerics_profile[0];
  other.numerics_profile = base.numerics_profile.substr(1);
  EXPECT_NE(StateId(other), base.id);
  other = base;
  other.labels = {{"not", "content"}};
  EXPECT_EQ(StateId(other), base.id);
}

TEST(KeySchemaTest, NumbersSortAsKeysDo) {
  const std::vector<int64_t> numbers = {INT64_MIN, -1, 0, 1, 255, 256, int64_t{1} << 40, INT64_MAX};
  for (size_t i = 1; i < numbers.size(); ++i) {
    EXPECT_LT(TimelineKey("t", numbers[i - 1], "z"), TimelineKey("t", numbers[i], "a"));
    EXPECT_EQ(ParseTimelineKey("t", TimelineKey("t", numbers[i], "a"))->created_unix_nanos,
              numbers[i]);
    EXPECT_EQ(ParseAnswerTimeKey(AnswerTimeKey(numbers[i], "t.k"))->unix_nanos, numbers[i]);
  }
}

TEST(KeySchemaTest, ForeignKeysAreDataLossNotCrashes) {
  const std::string scope = PrefixScopeKey("t", std::string(16, 's'));
  for (size_t size = 0; size < 40; ++size) {
    const std::string bytes(size, '\x7f');
    EXPECT_TRUE(absl::IsDataLoss(ParsePrefixEntryKey(scope, bytes).status()));
    EXPECT_TRUE(absl::IsDataLoss(ParseAnswerTimeKey(bytes).status()));
    EXPECT_TRUE(absl::IsDataLoss(PositionOfLogChunkKey(LogChunkPrefix("t", "s"), bytes).status()));
  }
  for (size_t size = 0; size <= 10; ++size) {
    EXPECT_TRUE(absl::IsDataLoss(ParseTimelineKey("t", std::string(size, 't')).status())) << size;
  }
}

TEST(NamesTest, GrammarOfNames) {
  for (const char* good : {"a", "assistants/ada/main", "0", "a.b_c-d", "a/0"}) {
    EXPECT_EQ(ValidateName("f", good), absl::OkStatus()) << good;
  }
  EXPECT_EQ(ValidateName("f", std::string(63, 'a')), absl::OkStatus());
  const std::string segments = std::string(63, 'a') + "/" + std::string(63, 'b') + "/" +
                               std::string(63, 'c') + "/" + std::string(8, 'd');
  EXPECT_EQ(ValidateName("f", segments), absl::OkStatus());
  for (const std::string& bad :
       {std::string(), std::string("A"), std::string("a b"), std::string("/a"), std::string("a/"),
        std::string("a//b"), std::string("-a"), std::string(".a"), std::string("a/_b"),
        std::string(64, 'a'), segments + "d", std::string("a\0b", 3), std::string("\xc3\xa4")}) {
    EXPECT_THAT(ValidateName("f", bad), FailsWith(absl::StatusCode::kInvalidArgument, "f \""))
        << bad;
  }
  EXPECT_FALSE(ValidateStateId("f", "st-" + std::string(40, 'A')).ok());
  EXPECT_FALSE(ValidateStateId("f", "st-" + std::string(41, 'a')).ok());
  EXPECT_TRUE(ValidateStateId("f", "st-" + std::string(40, 'a')).ok());
}

// A reader without keys, to see overlays alone.
class EmptyReader : public KeyValueReader {
 public:
  absl::StatusOr<std::optional<std::string>> Get(Family, absl::string_view) const override {
    return std::optional<std::string>();
  }
  absl::Status Scan(Family, absl::string_view, absl::string_view, Visitor) const override {
    return absl::OkStatus();
  }
};

TEST(OverlayTest, ScanMergesLayersAndStopsWhenTold) {
  const EmptyReader nothing;
  Overlay lower(nothing);
  for (const char* key : {"p1", "p3", "p5", "q"}) lower.Put(Family::kRefs, key, "low");
  Overlay upper(lower);
  upper.Put(Family::kRefs, "p2", "up");
  upper.Put(Family::kRefs, "p3", "up");
  upper.Delete(Family::kRefs, "p5");
  upper.Put(Family::kRefs, "p6", "up");
  const auto scan = [&](const Overlay& overlay, absl::string_view from, size_t limit) {
    std::string seen;
    size_t count = 0;
    EXPECT_TRUE(overlay
                    .Scan(Family::kRefs, "p", from,
                          [&](absl::string_view key, absl::string_view value) {
                            seen += std::string(key) + "=" + std::string(value) + " ";
                            return ++count < limit;
                          })
                    .ok());
    return seen;
  };
  EXPECT_EQ(scan(upper, "", 9), "p1=low p2=up p3=up p6=up ");
  EXPECT_EQ(scan(upper, "p3", 9), "p3=up p6=up ");
  EXPECT_EQ(scan(upper, "", 2), "p1=low p2=up ");
  Overlay copy(lower);
  copy.Delete(Family::kRefs, "p1");
  lower.Absorb(std::move(copy));
  EXPECT_EQ(scan(lower, "", 9), "p3=low p5=low ");
}

}  // namespace
}  // namespace anabranch
