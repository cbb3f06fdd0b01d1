// Every single-bit flip and every truncation of what is stored of a state is reported, with the
// state's name; nothing wrong is returned. Goes through the code of every read (library_reads.h,
// payloads.h), on values in memory, so that tens of thousands of cases take seconds.
//
// ANABRANCH_BIT_FLIPS: random flips beyond the first 4 KiB of each value (2,000).
#include <algorithm>
#include <cstdlib>
#include <random>

#include "absl/strings/numbers.h"
#include "statestore/library_reads.h"
#include "statestore/overlay.h"
#include "statestore/payloads.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

constexpr size_t kFirstBytes = 4096;

class NoReader : public KeyValueReader {
 public:
  absl::StatusOr<std::optional<std::string>> Get(Family, absl::string_view) const override {
    return std::optional<std::string>();
  }
  absl::Status Scan(Family, absl::string_view, absl::string_view, Visitor) const override {
    return absl::OkStatus();
  }
};

int RandomFlips() {
  const char* value = std::getenv("ANABRANCH_BIT_FLIPS");
  int number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : 2000;
}

// A state whose record, payload and blob are larger than what is flipped exhaustively. The payload
// is one value, or the second of its parts is what is flipped.
class BitFlipTest : public testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    std::mt19937 random(7);
    std::vector<int32_t> tokens(3000);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 50000);
    state_.record = MakeState(tokens);
    state_.record.header = std::string(2000, 'h');
    state_.record.labels = {{"key", "value"}};
    payload_ = Noise(20000, random);
    blob_ = Noise(9000, random);
    state_.record.payload_bytes = payload_.size();
    state_.record.payload_checksum = PayloadChecksum(payload_);
    state_.record.blob_hashes = {"hash"};
    state_.record.blob_bytes = blob_.size();
    state_.prefix_hash = std::string(16, 'p');
    record_key_ = NamedKey(kTenant, state_.record.id);
    Overlay payload(nothing_);
    PutPayload(payload_, GetParam(), state_.record, payload);
    for (const auto& [key, value] : payload.changes(Family::kPayloads)) {
      payload_values_.emplace_back(key, std::string(*value));
    }
    flipped_ = payload_values_.size() > 1 ? 1 : 0;
    blob_key_ = NamedKey(kTenant, "hash");
    record_ = EncodeState(record_key_, state_);
    sealed_blob_ = EncodeBlob(blob_key_, blob_);
  }
  static std::string Noise(size_t size, std::mt19937& random) {
    std::string bytes(size, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    return bytes;
  }
  // What reading all of the state says, with these values stored.
  absl::Status ReadAll(const std::string& record, const std::string& payload,
                       const std::string& blob) const {
    Overlay stored(nothing_);
    stored.Put(Family::kStates, record_key_, record);
    for (size_t i = 0; i < payload_values_.size(); ++i) {
      const auto& [key, value] = payload_values_[i];
      stored.Put(Family::kPayloads, key, i == flipped_ ? payload : value);
    }
    stored.Put(Family::kBlobs, blob_key_, blob);
    const auto state = ReadState(stored, kTenant, state_.record.id);
    if (!state.ok()) return state.status();
    const auto read = ReadPayload(stored, state->record);
    std::string memory;
    const absl::Status into = ReadPayload(stored, state->record, [&](size_t bytes) {
      memory.resize(bytes);
      return absl::StatusOr<absl::Span<char>>(absl::MakeSpan(memory));
    });
    EXPECT_EQ(read.status(), into);
    if (!read.ok()) return read.status();
    if (memory != *read) return absl::InternalError("the reads differ");
    const auto read_blob = ReadBlob(stored, kTenant, state->record.blob_hashes.at(0));
    if (!read_blob.ok()) return read_blob.status();
    return *read == payload_ && *read_blob == blob_ ? absl::OkStatus()
                                                    : absl::InternalError("wrong bytes returned");
  }
  bool Reported(int part, const std::string& value) {
    const absl::Status status =
        ReadAll(part == 0 ? value : record_, part == 1 ? value : payload_value(),
                part == 2 ? value : sealed_blob_);
    if (absl::IsDataLoss(status)) return true;
    // Half a record may look like one of another version: refused as well, never read.
    return part == 0 && absl::IsFailedPrecondition(status);
  }
  std::string payload_value() const { return payload_values_[flipped_].second; }
  std::vector<std::string> parts() const { return {record_, payload_value(), sealed_blob_}; }

  const NoReader nothing_;
  StoredState state_;
  std::string record_key_, blob_key_, payload_, blob_, record_, sealed_blob_;
  std::vector<std::pair<std::string, std::string>> payload_values_;  // by key
  size_t flipped_ = 0;                                               // of them
};

INSTANTIATE_TEST_SUITE_P(OneValueAndParts, BitFlipTest, testing::Values(1u << 20, 9000u));

TEST_P(BitFlipTest, WhatIsWholeReadsBack) {
  EXPECT_EQ(ReadAll(record_, payload_value(), sealed_blob_), absl::OkStatus());
}

TEST_P(BitFlipTest, EveryFlippedBitOfTheFirst4KiBAndRandomOnesAfterThemAreReported) {
  int flips = 0, reported = 0;
  std::mt19937 random(11);
  const auto flip = [&](int part, std::string& value, size_t bit) {
    value[bit / 8] = static_cast<char>(value[bit / 8] ^ (1 << (bit % 8)));
    ++flips;
    reported += Reported(part, value);
    value[bit / 8] = static_cast<char>(value[bit / 8] ^ (1 << (bit % 8)));
  };
  for (int part = 0; part < 3; ++part) {
    std::string value = parts()[part];
    for (size_t bit = 0; bit < 8 * std::min(kFirstBytes, value.size()); ++bit) {
      flip(part, value, bit);
    }
    for (int i = 0; i < RandomFlips(); ++i) flip(part, value, random() % (8 * value.size()));
  }
  EXPECT_EQ(reported, flips);
  RecordProperty("flips", flips);
  std::printf("%d of %d single-bit flips reported\n", reported, flips);
}

TEST_P(BitFlipTest, EveryTruncationAndAppendedGarbageAreReported) {
  int cases = 0, reported = 0;
  for (int part = 0; part < 3; ++part) {
    const std::string value = parts()[part];
    for (size_t size = 0; size < std::min(kFirstBytes + 1, value.size()); ++size) {
      ++cases;
      reported += Reported(part, value.substr(0, size));
    }
    for (size_t size = kFirstBytes; size < value.size(); size += 97) {
      ++cases;
      reported += Reported(part, value.substr(0, size));
    }
    for (const std::string& more : {std::string(1, '\0'), std::string("x"), value}) {
      ++cases;
      reported += Reported(part, value + more);
    }
  }
  EXPECT_EQ(reported, cases);
  std::printf("%d of %d truncations and extensions reported\n", reported, cases);
}

}  // namespace
}  // namespace anabranch
