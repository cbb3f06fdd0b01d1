// Giving up the content of states: what goes, what stays, and what is never given up.
#include "absl/strings/str_cat.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

// A line of four states; the second one may be thinned.
class ThinningTest : public LibraryTest {
 protected:
  void SetUp() override {
    LibraryTest::SetUp();
    states_.push_back(MakeState({1, 2}));
    for (int i = 1; i < 4; ++i) states_.push_back(MakeState({i * 10, i * 10 + 1}, &states_.back()));
    for (int i = 0; i < 4; ++i) {
      states_[i].kind = CaptureReason::kGrid;
      PutState put = Put(states_[i]);
      put.record.blob_hashes = {"shared", absl::StrCat("own", i)};
      put.blobs = {"all of them", absl::StrCat("blob ", i)};
      ASSERT_EQ(Commit(put), absl::OkStatus());
    }
  }
  absl::Status Thin(int index) { return Commit(ThinState{kTenant, states_[index].id}); }
  bool IsThinned(int index) { return store_->GetState(kTenant, states_[index].id)->thinned; }

  std::vector<StateRecord> states_;
};

TEST_F(ThinningTest, TheContentGoesAndTheTokensStayAlsoAfterReopening) {
  ASSERT_EQ(Thin(1), absl::OkStatus());
  for (int round = 0; round < 2; ++round) {
    const auto state = store_->GetState(kTenant, states_[1].id);
    ASSERT_TRUE(state.ok());
    EXPECT_TRUE(state->thinned);
    EXPECT_EQ(state->kind, CaptureReason::kGrid);
    EXPECT_EQ(state->payload_bytes + state->blob_bytes, 0u);
    EXPECT_THAT(store_->GetPayload(kTenant, states_[1].id).status(),
                FailsWith(kPrecondition, "thinned"));
    EXPECT_FALSE(*store_->HasBlob(kTenant, "own1"));
    EXPECT_TRUE(*store_->HasBlob(kTenant, "shared"));
    EXPECT_THAT(*store_->GetTokens(kTenant, states_[3].id),
                ElementsAre(1, 2, 10, 11, 20, 21, 30, 31));
    EXPECT_EQ(store_->GetLineage(kTenant, states_[3].id, {})->items.size(), 4u);
    EXPECT_EQ(store_->ListStates(kTenant, {}, {})->items.size(), 3u);
    EXPECT_EQ((*store_->FindPrefix(kTenant, "model-a", "cpu-float32", {1, 2, 10, 11, 99},
                                   PrefixKind::kAny))
                  ->id,
              states_[0].id);
    Reopen();
  }
  EXPECT_EQ(Thin(1), absl::OkStatus());  // again: nothing
}

TEST_F(ThinningTest, NothingStartsAtAThinnedState) {
  ASSERT_EQ(Thin(1), absl::OkStatus());
  EXPECT_THAT(Commit(SetRef{kTenant, "main", states_[1].id, {}}),
              FailsWith(kPrecondition, "thinned"));
  EXPECT_THAT(Commit(NewSession("chat", &states_[1])), FailsWith(kPrecondition, "thinned"));
}

TEST_F(ThinningTest, WhatSomethingNeedsIsLeftAlone) {
  EXPECT_EQ(Thin(3), absl::OkStatus());  // the end of a line
  EXPECT_FALSE(IsThinned(3));
  ASSERT_EQ(Commit(SetRef{kTenant, "main", states_[1].id, {}}), absl::OkStatus());
  EXPECT_EQ(Thin(1), absl::OkStatus());
  EXPECT_FALSE(IsThinned(1));
  ASSERT_EQ(Commit(DeleteRef{kTenant, "main"}, NewSession("chat", &states_[1])), absl::OkStatus());
  EXPECT_EQ(Thin(1), absl::OkStatus());
  EXPECT_FALSE(IsThinned(1));
  UpdateState update;
  update.tenant = kTenant;
  update.id = states_[1].id;
  update.labels = Labels{{"keep", "me"}};
  ASSERT_EQ(Commit(DeleteSession{kTenant, "chat"}, update), absl::OkStatus());
  EXPECT_EQ(Thin(1), absl::OkStatus());
  EXPECT_FALSE(IsThinned(1));
  update.labels = Labels();
  update.pinned = true;
  ASSERT_EQ(Commit(update), absl::OkStatus());
  EXPECT_EQ(Thin(1), absl::OkStatus());
  EXPECT_FALSE(IsThinned(1));
  update.pinned = false;
  const StateRecord branch = MakeState({77}, &states_[1]);
  ASSERT_EQ(Commit(update, Put(branch)), absl::OkStatus());
  EXPECT_EQ(Thin(1), absl::OkStatus());
  EXPECT_FALSE(IsThinned(1));
  ASSERT_EQ(Commit(DeleteState{kTenant, branch.id}), absl::OkStatus());
  EXPECT_EQ(Thin(1), absl::OkStatus());
  EXPECT_TRUE(IsThinned(1));
}

TEST_F(ThinningTest, MergesAndWhatTheyWereMadeOfAreLeftAlone) {
  StateRecord merge = MakeState({1, 2, 3});
  merge.operation = StateOperation::kMerge;
  merge.parents = {states_[3].id, states_[0].id};
  merge.id = StateId(merge);
  const StateRecord after = MakeState({4}, &merge);
  ASSERT_EQ(Commit(Put(merge), Put(after)), absl::OkStatus());
  ASSERT_EQ(Commit(ThinState{kTenant, merge.id}), absl::OkStatus());
  EXPECT_FALSE(store_->GetState(kTenant, merge.id)->thinned);
  ASSERT_EQ(Thin(3), absl::OkStatus());
  EXPECT_FALSE(IsThinned(3));
}

TEST_F(ThinningTest, PuttingAStateAgainBringsItBack) {
  ASSERT_EQ(Thin(1), absl::OkStatus());
  PutState again = Put(states_[1]);
  again.record.blob_hashes = {"shared", "own1"};
  again.record.kind = CaptureReason::kMark;
  again.blobs = {"", "blob 1"};
  ASSERT_EQ(Commit(again), absl::OkStatus());
  EXPECT_FALSE(IsThinned(1));
  EXPECT_EQ(store_->GetState(kTenant, states_[1].id)->kind, CaptureReason::kMark);
  EXPECT_EQ(*store_->GetPayload(kTenant, states_[1].id), "payload");
  EXPECT_EQ(*store_->GetBlob(kTenant, "own1"), "blob 1");
  EXPECT_EQ(
      (*store_->FindPrefix(kTenant, "model-a", "cpu-float32", {1, 2, 10, 11, 99}, PrefixKind::kAny))
          ->id,
      states_[1].id);
  const auto users = store_->GetUsers(kTenant, states_[1].id);
  EXPECT_THAT(users->children, ElementsAre(states_[2].id));
  EXPECT_THAT(users->refs, IsEmpty());
}

TEST_F(ThinningTest, DeletingTheEndOfALineDeletesTheThinnedStatesBeforeIt) {
  ASSERT_EQ(Thin(1), absl::OkStatus());
  ASSERT_EQ(Thin(2), absl::OkStatus());
  ASSERT_EQ(Commit(DeleteState{kTenant, states_[3].id}), absl::OkStatus());
  EXPECT_THAT(store_->GetState(kTenant, states_[1].id).status(), FailsWith(kNotFound, "st-"));
  EXPECT_THAT(store_->GetState(kTenant, states_[2].id).status(), FailsWith(kNotFound, "st-"));
  EXPECT_TRUE(store_->GetState(kTenant, states_[0].id).ok());
}

TEST_F(ThinningTest, APolicyIsPartOfASession) {
  PutSession put = NewSession("chat");
  put.record.checkpoints = {false, 64, true, true, 5, 6};
  put.record.thin_from = 7;
  ASSERT_EQ(Commit(put, NewSession("plain")), absl::OkStatus());
  Reopen();
  EXPECT_EQ(store_->GetSession(kTenant, "chat")->checkpoints, put.record.checkpoints);
  EXPECT_EQ(store_->GetSession(kTenant, "chat")->thin_from, 7);
  EXPECT_EQ(store_->GetSession(kTenant, "plain")->checkpoints, CheckpointPolicy());
}

}  // namespace
}  // namespace anabranch
