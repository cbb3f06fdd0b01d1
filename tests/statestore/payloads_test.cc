// Payloads that are stored in parts: what comes back, what goes with a state, and what is said of
// damage. Also libraries of builds that stored every payload as one value.
#include "statestore/payloads.h"

#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <atomic>
#include <limits>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "statestore/bundle_format.h"
#include "statestore/high_water_mark.h"
#include "tests/statestore/closed_library.h"
#include "tests/statestore/library_fixture.h"
#include "tests/statestore/payload_keys.h"

namespace anabranch {
namespace {

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr uint64_t kPart = 5000;

std::string Noise(size_t bytes, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::string noise(bytes, '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  return noise;
}

class PayloadsTest : public LibraryTest {
 protected:
  void SetUp() override {
    options_.payload_part_bytes = kPart;
    LibraryTest::SetUp();
  }
  // What both reads give, if they agree.
  absl::StatusOr<std::string> Read(const StateRecord& state) {
    const absl::StatusOr<std::string> string = store_->GetPayload(kTenant, state.id);
    std::string memory;
    const absl::Status read = store_->ReadPayload(
        kTenant, state.id, [&](size_t bytes) -> absl::StatusOr<absl::Span<char>> {
          memory.assign(bytes, '?');
          return absl::MakeSpan(memory);
        });
    EXPECT_EQ(string.status(), read);
    EXPECT_EQ(string.value_or(memory), memory);
    return string;
  }
  RecodeState Recoded(const StateRecord& state, std::string payload) {
    const StateRecord stored = *store_->GetState(kTenant, state.id);
    return {Put(stored, std::move(payload)), stored.payload_checksum, {}};
  }
  void ExpectExactlyItsKeys() {
    Close();
    EXPECT_EQ(CheckPayloadKeys(options_), absl::OkStatus());
    Reopen();
  }
  // Under the library's feet; it is closed meanwhile.
  template <typename Edit>
  void WithRocks(Edit edit) {
    Close();
    WithClosedLibrary(options_.directory + "/rocksdb", edit);
    Reopen();
  }
  void Edit(Family family, const std::string& key, absl::FunctionRef<void(std::string&)> edit) {
    WithRocks([&](rocksdb::DB& db, const auto& handles) {
      auto* handle = handles[static_cast<int>(family)];
      std::string value;
      ASSERT_TRUE(db.Get({}, handle, key, &value).ok());
      edit(value);
      ASSERT_TRUE(value.empty() ? db.Delete({}, handle, key).ok()
                                : db.Put({}, handle, key, value).ok());
    });
  }
  static std::string Key(const StateRecord& state, uint64_t part) {
    return PayloadPartKey(kTenant, state.id, part);
  }
  std::string mark() const { return options_.directory + "/high-water-mark"; }
};

TEST_F(PayloadsTest, APayloadOfAnySizeComesBackAsItWasGiven) {
  std::vector<StateRecord> states;
  const std::vector<size_t> sizes = {0,         1,         kPart - 1,     kPart,
                                     kPart + 1, 2 * kPart, 9 * kPart + 7, 3u << 20};
  for (size_t i = 0; i < sizes.size(); ++i) {
    states.push_back(MakeState({static_cast<int32_t>(i)}));
    ASSERT_EQ(Commit(Put(states[i], Noise(sizes[i]))), absl::OkStatus());
  }
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_EQ(*Read(states[i]), Noise(sizes[i])) << sizes[i];
      const StateRecord stored = *store_->GetState(kTenant, states[i].id);
      EXPECT_EQ(stored.payload_part_bytes, sizes[i] > kPart ? kPart : 0) << sizes[i];
      EXPECT_EQ(stored.payload_bytes, sizes[i]);
    }
    ExpectExactlyItsKeys();
  }
}

TEST_F(PayloadsTest, PartsOfOneCommitAreSeenByItsLaterOperations) {
  const StateRecord state = MakeState({1});
  // The second heals if it does not see the first; either way there is one payload.
  ASSERT_EQ(Commit(Put(state, Noise(40000)), Put(state, Noise(40000)),
                   ArchiveState{kTenant, state.id, {}}, Put(state, Noise(30000))),
            absl::OkStatus());
  EXPECT_EQ(*Read(state), Noise(30000));
  ExpectExactlyItsKeys();
}

TEST_F(PayloadsTest, PartsGoWithWhatReplacesTheContentAndWithTheState) {
  const StateRecord root = MakeState({1}), middle = MakeState({2}, &root),
                    end = MakeState({3}, &middle);
  ASSERT_EQ(Commit(Put(root, Noise(70000)), Put(middle, Noise(80000)), Put(end, Noise(60000))),
            absl::OkStatus());
  for (const size_t bytes : {90001, 12000, 100, 50000}) {
    ASSERT_EQ(Commit(Recoded(root, Noise(bytes, 5))), absl::OkStatus());
    EXPECT_EQ(*Read(root), Noise(bytes, 5));
    ExpectExactlyItsKeys();
  }
  ASSERT_EQ(Commit(ThinState{kTenant, middle.id}), absl::OkStatus());
  EXPECT_THAT(Read(middle).status(), FailsWith(kPrecondition, "thinned"));
  ExpectExactlyItsKeys();
  ASSERT_EQ(Commit(ArchiveState{kTenant, end.id, {}}), absl::OkStatus());
  EXPECT_THAT(Read(end).status(), FailsWith(kPrecondition, "archived"));
  ExpectExactlyItsKeys();
  ASSERT_EQ(Commit(Put(end, Noise(60000))), absl::OkStatus());
  EXPECT_EQ(*Read(end), Noise(60000));
  ASSERT_EQ(Commit(DeleteState{kTenant, end.id}), absl::OkStatus());
  ExpectExactlyItsKeys();
}

TEST_F(PayloadsTest, AReadSeesOneFormOfAStateThatIsRecodedMeanwhile) {
  const StateRecord state = MakeState({1});
  const std::string forms[] = {Noise(2 << 20, 1), Noise(2 << 20, 2)};
  ASSERT_EQ(Commit(Put(state, forms[0])), absl::OkStatus());
  std::atomic<bool> stop{false};
  std::thread recoder([&] {
    for (int i = 1; !stop.load(); ++i) {
      EXPECT_EQ(Commit(Recoded(state, forms[i % 2])), absl::OkStatus());
    }
  });
  for (int i = 0; i < 50; ++i) {
    std::string read(2 << 20, '\0');
    EXPECT_EQ(store_->ReadPayload(
                  kTenant, state.id,
                  [&](size_t) -> absl::StatusOr<absl::Span<char>> { return absl::MakeSpan(read); }),
              absl::OkStatus());
    EXPECT_TRUE(read == forms[0] || read == forms[1]) << i;
  }
  stop.store(true);
  recoder.join();
}

TEST_F(PayloadsTest, MemoryThatCannotBeHadOrHasAnotherSizeIsAnError) {
  const StateRecord state = MakeState({1});
  ASSERT_EQ(Commit(Put(state, Noise(20000))), absl::OkStatus());
  EXPECT_THAT(store_->ReadPayload(kTenant, state.id,
                                  [](size_t bytes) -> absl::StatusOr<absl::Span<char>> {
                                    EXPECT_EQ(bytes, 20000u);
                                    return absl::ResourceExhaustedError("none");
                                  }),
              FailsWith(absl::StatusCode::kResourceExhausted, "none"));
  std::string small(19999, '\0');
  EXPECT_THAT(store_->ReadPayload(kTenant, state.id,
                                  [&](size_t) -> absl::StatusOr<absl::Span<char>> {
                                    return absl::MakeSpan(small);
                                  }),
              FailsWith(absl::StatusCode::kInvalidArgument, "19999"));
}

TEST_F(PayloadsTest, DamageNamesTheStateAndThePartAndIsHealedByPuttingItAgain) {
  const StateRecord state = MakeState({1}), other = MakeState({2});
  const std::string payload = Noise(4 * kPart + 1);
  ASSERT_EQ(Commit(Put(state, payload), Put(other, Noise(4 * kPart + 1, 9))), absl::OkStatus());
  std::string first, of_other;
  Edit(Family::kPayloads, Key(state, 0), [&](std::string& value) { first = value; });
  Edit(Family::kPayloads, Key(other, 1), [&](std::string& value) { of_other = value; });
  const std::pair<const char*, std::function<void(std::string&)>> kDamage[] = {
      {"checksum", [](std::string& value) { value[value.size() / 2] ^= 1; }},
      {"checksum", [](std::string& value) { value.resize(value.size() - 1); }},
      {"missing", [](std::string& value) { value.clear(); }},
      {"checksum", [&](std::string& value) { value = first; }},     // another index
      {"checksum", [&](std::string& value) { value = of_other; }},  // another state
  };
  for (const auto& [what, edit] : kDamage) {
    Edit(Family::kPayloads, Key(state, 1), edit);
    EXPECT_THAT(Read(state).status(), FailsWith(kDataLoss, what));
    EXPECT_THAT(Read(state).status(), FailsWith(kDataLoss, state.id));
    EXPECT_THAT(Read(state).status(), FailsWith(kDataLoss, "part 2 of 5"));
    EXPECT_EQ(*Read(other), Noise(4 * kPart + 1, 9));
    ASSERT_EQ(Commit(Put(state, payload)), absl::OkStatus());
    EXPECT_EQ(*Read(state), payload);
  }
  ExpectExactlyItsKeys();
}

// A table that a disk brought back, say: the part is whole and at its place, and not of this form.
TEST_F(PayloadsTest, APartOfAFormerFormIsDamage) {
  const StateRecord state = MakeState({1});
  ASSERT_EQ(Commit(Put(state, Noise(4 * kPart))), absl::OkStatus());
  std::string former;
  Edit(Family::kPayloads, Key(state, 3), [&](std::string& value) { former = value; });
  ASSERT_EQ(Commit(Recoded(state, Noise(4 * kPart, 2))), absl::OkStatus());
  Edit(Family::kPayloads, Key(state, 3), [&](std::string& value) { value = former; });
  EXPECT_THAT(Read(state).status(), FailsWith(kDataLoss, "part 4 of 4: it is of another payload"));
}

// No damage does that; a fault of this program might.
TEST_F(PayloadsTest, PartsThatDoNotMakeUpThePayloadAreFoundByWhatComparesAllOfIt) {
  const StateRecord state = MakeState({1});
  ASSERT_EQ(Commit(Put(state, Noise(3 * kPart))), absl::OkStatus());
  const uint64_t checksum = store_->GetState(kTenant, state.id)->payload_checksum;
  Edit(Family::kPayloads, Key(state, 1), [&](std::string& value) {
    const std::string other = Noise(kPart, 77);
    const PayloadPartFrame frame = FramePayloadPart(Key(state, 1), checksum, other);
    value = frame.before + other + frame.behind;
  });
  EXPECT_THAT(store_->GetPayload(kTenant, state.id).status(),
              FailsWith(kDataLoss, "checksum does not match, though each of its 3 parts"));
  EXPECT_THAT(store_->Scrub("", 1 << 20)->damaged, ::testing::SizeIs(1));
  ASSERT_EQ(Commit(Put(state, Noise(3 * kPart))), absl::OkStatus());
  EXPECT_EQ(*Read(state), Noise(3 * kPart));
}

TEST_F(PayloadsTest, WhatADamagedRecordHadIsGoneOnceItIsPutAgain) {
  const StateRecord state = MakeState({1});
  ASSERT_EQ(Commit(Put(state, Noise(9 * kPart))), absl::OkStatus());
  Edit(Family::kStates, NamedKey(kTenant, state.id), [](std::string& value) { value[5] ^= 1; });
  EXPECT_THAT(Read(state).status(), FailsWith(kDataLoss, state.id));
  ASSERT_EQ(Commit(Put(state, Noise(2 * kPart))), absl::OkStatus());
  EXPECT_EQ(*Read(state), Noise(2 * kPart));
  ExpectExactlyItsKeys();
}

TEST_F(PayloadsTest, ABundleDoesNotTellHowThePayloadWasStored) {
  const StateRecord state = MakeState({1});
  const auto bundle = [&] {
    StateRecord stored = *store_->GetState(kTenant, state.id);
    return EncodeBundleRecord(stored);
  };
  PutState put = Put(state, Noise(9 * kPart));
  put.record.created = absl::FromUnixSeconds(1);
  ASSERT_EQ(Commit(put), absl::OkStatus());
  const std::string in_parts = bundle();
  ASSERT_EQ(Commit(DeleteState{kTenant, state.id}), absl::OkStatus());
  options_.payload_part_bytes = kPayloadPartBytes;
  Reopen();
  ASSERT_EQ(Commit(put), absl::OkStatus());
  EXPECT_EQ(bundle(), in_parts);
}

// Libraries of builds before there were parts: every payload is one value, the mark says 2 and the
// database 1.
class FormerLibraryTest : public PayloadsTest {
 protected:
  void SetUp() override {
    PayloadsTest::SetUp();
    options_.payload_part_bytes = std::numeric_limits<uint64_t>::max();
    Reopen();
    for (int i = 0; i < 4; ++i) {
      states_.push_back(MakeState({i}));
      ASSERT_EQ(Commit(Put(states_.back(), Noise(3 << 20, i))), absl::OkStatus());
    }
    options_.payload_part_bytes = kPayloadPartBytes;
    WithRocks([&](rocksdb::DB& db, const auto& handles) {
      ASSERT_TRUE(
          db.Put({}, handles[0], std::string(kFormatVersionKey), EncodeNumber(kFormatVersionKey, 1))
              .ok());
      const auto now = HighWaterMark::Read(*rocksdb::Env::Default(), mark());
      ASSERT_TRUE(
          HighWaterMark::Create(*rocksdb::Env::Default(), mark(), {2, now->commit_seq}).ok());
    });
  }

  std::vector<StateRecord> states_;
};

TEST_F(FormerLibraryTest, ItsPayloadsAreReadReplacedAndDeleted) {
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(store_->GetState(kTenant, states_[i].id)->payload_part_bytes, 0u);
    EXPECT_EQ(*Read(states_[i]), Noise(3 << 20, i));
  }
  ASSERT_EQ(Commit(Recoded(states_[0], Noise(2 << 20, 7)), DeleteState{kTenant, states_[1].id},
                   ArchiveState{kTenant, states_[2].id, {}}),
            absl::OkStatus());
  EXPECT_EQ(*Read(states_[0]), Noise(2 << 20, 7));
  EXPECT_EQ(store_->GetState(kTenant, states_[0].id)->payload_part_bytes, kPayloadPartBytes);
  EXPECT_EQ(*Read(states_[3]), Noise(3 << 20, 3));
  ExpectExactlyItsKeys();
}

TEST_F(FormerLibraryTest, OldBuildsRefuseItAndItsBackupsOnceItWasOpened) {
  EXPECT_EQ(HighWaterMark::Read(*rocksdb::Env::Default(), mark())->format_version, 3u);
  Close();
  const auto database =
      Database::Open(options_.directory + "/rocksdb", options_, Database::Mode::kInspect);
  EXPECT_EQ(ReadLibraryMeta(**database)->format_version, 3u);
}

}  // namespace
}  // namespace anabranch
