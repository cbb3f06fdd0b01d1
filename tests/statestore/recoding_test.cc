// The content of states in another form, or given up where it can be read again: one commit each,
// and everything that is not content stays.
#include "absl/strings/str_cat.h"
#include "statestore/record_codec.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kAborted = absl::StatusCode::kAborted;

// Two states of one line; both have the block "shared", each one of its own.
class RecodingTest : public LibraryTest {
 protected:
  void SetUp() override {
    LibraryTest::SetUp();
    states_.push_back(MakeState({1, 2}));
    states_.push_back(MakeState({10, 11}, &states_.back()));
    for (int i = 0; i < 2; ++i) {
      PutState put = Put(states_[i], absl::StrCat("payload ", i));
      put.record.labels = {{"topic", "rivers"}};
      put.record.blob_hashes = {"shared", absl::StrCat("own", i)};
      put.blobs = {"all of them", absl::StrCat("blob ", i)};
      put.record.blob_bytes = 17;
      ASSERT_EQ(Commit(put), absl::OkStatus());
    }
  }

  StateRecord Stored(int index) { return *store_->GetState(kTenant, states_[index].id); }
  // The state in eight bytes less, with one block of its own.
  RecodeState Smaller(int index) {
    RecodeState recode{Put(Stored(index), "small"), Stored(index).payload_checksum, {}};
    StateRecord& record = recode.put.record;
    record.header = "small header";
    record.codec = StateCodec::kNear;
    record.exact_bytes = 26;
    record.codec_error = 0.25;
    record.lossy_restores = 3;
    record.blob_hashes = {absl::StrCat("near", index)};
    record.blob_bytes = 4;
    recode.put.blobs = {"near"};
    return recode;
  }
  std::optional<StateRecord> Found(PrefixKind kind = PrefixKind::kAny) {
    return *store_->FindPrefix(kTenant, "model-a", "cpu-float32", {1, 2, 10, 11, 99}, kind);
  }

  std::vector<StateRecord> states_;
};

TEST_F(RecodingTest, TheContentIsReplacedWholeAndNothingElse) {
  const StateRecord before = Stored(1);
  ASSERT_EQ(Commit(Smaller(1)), absl::OkStatus());
  for (int round = 0; round < 2; ++round) {
    const StateRecord state = Stored(1);
    EXPECT_EQ(state.codec, StateCodec::kNear);
    EXPECT_EQ(state.header, "small header");
    EXPECT_EQ(state.exact_bytes, 26u);
    EXPECT_EQ(state.codec_error, 0.25f);
    EXPECT_EQ(state.lossy_restores, 3u);
    EXPECT_EQ(state.created, before.created);
    EXPECT_EQ(state.labels, before.labels);
    EXPECT_NE(state.etag, before.etag);
    EXPECT_EQ(*store_->GetPayload(kTenant, state.id), "small");
    EXPECT_EQ(*store_->GetBlob(kTenant, "near1"), "near");
    EXPECT_FALSE(*store_->HasBlob(kTenant, "own1"));
    EXPECT_TRUE(*store_->HasBlob(kTenant, "shared"));  // of the other state
    Reopen();
  }
}

TEST_F(RecodingTest, ContentThatWasReplacedMeanwhileIsNotReplacedAgain) {
  const RecodeState late = Smaller(1);
  ASSERT_EQ(Commit(Smaller(1)), absl::OkStatus());
  EXPECT_THAT(Commit(late), FailsWith(kAborted, "replaced meanwhile"));
  RecodeState stale = Smaller(1);
  stale.etag = 1;
  EXPECT_THAT(Commit(stale), FailsWith(kAborted, "etag"));
}

TEST_F(RecodingTest, AHistoryIsResumedFromExactStatesAloneIfItIsToBe) {
  ASSERT_EQ(Commit(Smaller(1)), absl::OkStatus());
  EXPECT_EQ(Found()->id, states_[1].id);
  EXPECT_EQ(Found(PrefixKind::kExact)->id, states_[0].id);
}

TEST_F(RecodingTest, AnArchivedStateKeepsAllButItsContent) {
  ASSERT_EQ(Commit(SetRef{kTenant, "main", states_[1].id, {}}, NewSession("chat", &states_[1]),
                   UpdateState{kTenant, states_[1].id, {}, {}, {}, true}),
            absl::OkStatus());
  ASSERT_EQ(Commit(ArchiveState{kTenant, states_[1].id, {}}), absl::OkStatus());
  for (int round = 0; round < 2; ++round) {
    const StateRecord state = Stored(1);
    EXPECT_EQ(state.codec, StateCodec::kArchive);
    EXPECT_FALSE(IsWhole(state));
    EXPECT_EQ(state.payload_bytes + state.blob_bytes, 0u);
    EXPECT_EQ(state.exact_bytes, 26u);
    EXPECT_EQ(state.header, "header");
    EXPECT_TRUE(state.pinned);
    EXPECT_EQ(state.labels.size(), 1u);
    EXPECT_THAT(store_->GetPayload(kTenant, state.id).status(),
                FailsWith(kPrecondition, "archived"));
    EXPECT_FALSE(*store_->HasBlob(kTenant, "own1"));
    EXPECT_EQ(Found()->id, states_[0].id);
    EXPECT_EQ(store_->ListStates(kTenant, {}, {})->items.size(), 2u);
    EXPECT_THAT(*store_->GetTokens(kTenant, state.id), ElementsAre(1, 2, 10, 11));
    Reopen();
  }
  // It may still be named and gone on from; a second time changes nothing.
  EXPECT_EQ(Commit(SetRef{kTenant, "also", states_[1].id, {}}, NewSession("two", &states_[1]),
                   ArchiveState{kTenant, states_[1].id, {}}),
            absl::OkStatus());
}

TEST_F(RecodingTest, AnArchivedStateComesBackByRecodingAndByBeingReadAgain) {
  for (const bool read_again : {false, true}) {
    ASSERT_EQ(Commit(ArchiveState{kTenant, states_[1].id, {}}), absl::OkStatus());
    PutState put = Put(states_[1], "payload 1");
    put.record.blob_hashes = {"shared", "own1"};
    put.record.blob_bytes = 17;
    put.blobs = {"", "blob 1"};
    ASSERT_EQ(read_again ? Commit(put) : Commit(RecodeState{put, 0, {}}), absl::OkStatus());
    const StateRecord state = Stored(1);
    EXPECT_TRUE(IsExact(state));
    EXPECT_EQ(state.labels.size(), 1u);
    EXPECT_EQ(*store_->GetPayload(kTenant, state.id), "payload 1");
    EXPECT_EQ(*store_->GetBlob(kTenant, "own1"), "blob 1");
    EXPECT_EQ(Found()->id, state.id);
  }
}

TEST_F(RecodingTest, WhatNoTokensLeadToIsNotArchived) {
  StateRecord merge = MakeState({1, 2, 10, 11});
  merge.parents = {states_[0].id, states_[1].id};
  merge.operation = StateOperation::kMerge;
  merge.id = StateId(merge);
  ASSERT_EQ(Commit(Put(merge)), absl::OkStatus());
  EXPECT_THAT(Commit(ArchiveState{kTenant, merge.id, {}}), FailsWith(kPrecondition, "computed"));
  EXPECT_TRUE(store_->GetPayload(kTenant, merge.id).ok());
  EXPECT_THAT(Commit(ArchiveState{kTenant, MakeState({7}).id, {}}), FailsWith(kNotFound, ""));
}

TEST_F(RecodingTest, AStateThatIsReadAgainBecomesMoreExactIfNobodyCountsOnItsBlobs) {
  ASSERT_EQ(Commit(Smaller(0), Smaller(1)), absl::OkStatus());
  EXPECT_EQ(Commit(Put(states_[1], "payload 1")), absl::OkStatus());
  EXPECT_EQ(*store_->GetPayload(kTenant, states_[1].id), "small");
  RecodeState without_blobs = Smaller(0);
  without_blobs.put.record.blob_hashes.clear();
  without_blobs.put.blobs.clear();
  ASSERT_EQ(Commit(without_blobs), absl::OkStatus());
  PutState less = Put(states_[0], "less exact");
  less.record.codec = StateCodec::kCompact;
  EXPECT_EQ(Commit(less), absl::OkStatus());
  EXPECT_EQ(*store_->GetPayload(kTenant, states_[0].id), "small");
  EXPECT_EQ(Commit(Put(states_[0], "payload 0")), absl::OkStatus());
  EXPECT_EQ(*store_->GetPayload(kTenant, states_[0].id), "payload 0");
  EXPECT_TRUE(IsExact(Stored(0)));
}

TEST_F(RecodingTest, AThinnedStateIsNeither) {
  StateRecord child = MakeState({20}, &states_[1]);
  ASSERT_EQ(Commit(Put(child)), absl::OkStatus());
  UpdateState no_labels{kTenant, states_[1].id};
  no_labels.labels = Labels();
  const RecodeState late = Smaller(1);
  ASSERT_EQ(Commit(no_labels, ThinState{kTenant, states_[1].id}), absl::OkStatus());
  ASSERT_TRUE(Stored(1).thinned);
  EXPECT_THAT(Commit(late), FailsWith(kPrecondition, "thinned"));
  ASSERT_EQ(Commit(ArchiveState{kTenant, states_[1].id, {}}), absl::OkStatus());
  EXPECT_EQ(Stored(1).codec, StateCodec::kExact);
}

}  // namespace
}  // namespace anabranch
