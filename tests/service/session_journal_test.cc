// What a session writes, in which order, and what happens when a write fails.
#include "service/session_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "service/error_info.h"
#include "tests/service/manual_store.h"

namespace anabranch {
namespace {

using testing::ElementsAre;

class SessionJournalTest : public testing::Test {
 protected:
  static SessionRecord Record() {
    SessionRecord record;
    record.tenant = "default";
    record.id = "a";
    record.fingerprint = "f";
    return record;
  }
  std::shared_ptr<SessionJournal> Journal(bool created = true) {
    return std::make_shared<SessionJournal>(&store_, &storing_, &metrics_, Record(),
                                            std::vector<int32_t>(), created);
  }
  static StateImage Image(int64_t position, const std::vector<std::string>& blobs = {}) {
    StateImage image;
    image.header.fingerprint = "f";
    image.header.numerics_profile = "cpu-float32";
    image.header.token_count = position;
    image.payload = std::string("payload");
    for (const std::string& blob : blobs) {
      image.header.kv_blocks.push_back({"hash-" + blob, 256, blob.size()});
      image.kv_blocks.push_back(blob);
    }
    return image;
  }
  template <typename T>
  const T& Operation(size_t mutation, size_t index) {
    return absl::get<T>(store_.mutations.at(mutation).operations.at(index));
  }

  ManualStore store_;
  StateStoring storing_;
  Metrics metrics_;
};

TEST_F(SessionJournalTest, TokensAreLoggedInOrderAndDurableOnlyWhenAnswered) {
  auto journal = Journal();
  journal->Log({1, 2, 3});
  journal->Log({4});
  EXPECT_EQ(Operation<AppendLog>(0, 0).position, 0);
  EXPECT_EQ(Operation<AppendLog>(1, 0).position, 3);
  EXPECT_THAT(Operation<AppendLog>(1, 0).tokens, ElementsAre(4));
  EXPECT_EQ(journal->view().token_count, 4);
  EXPECT_EQ(journal->view().durable_token_count, 0);
  store_.Answer();
  EXPECT_EQ(journal->view().durable_token_count, 3);
  store_.Answer();
  EXPECT_EQ(journal->view().durable_token_count, 4);
}

TEST_F(SessionJournalTest, ACheckpointMovesHeadAndLogInOneMutation) {
  auto journal = Journal();
  journal->Log({1, 2, 3});
  journal->Checkpoint(3, Image(3));
  journal->Log({4});
  ASSERT_EQ(store_.mutations.size(), 3u);
  ASSERT_EQ(store_.mutations[1].operations.size(), 3u);
  const StateRecord& state = Operation<PutState>(1, 0).record;
  EXPECT_THAT(state.span_tokens, ElementsAre(1, 2, 3));
  EXPECT_TRUE(state.parents.empty());
  EXPECT_EQ(state.id, StateId(state));
  EXPECT_EQ(Operation<PutSession>(1, 1).record.head_state, state.id);
  EXPECT_EQ(Operation<PutSession>(1, 1).record.head_position, 3);
  EXPECT_EQ(Operation<TrimLog>(1, 2).position, 3);
  EXPECT_EQ(Operation<AppendLog>(2, 0).position, 3);
  EXPECT_THAT(journal->tail(), ElementsAre(4));
}

TEST_F(SessionJournalTest, TheNextStateNamesTheOneBeforeAsItsParent) {
  auto journal = Journal();
  journal->Log({1, 2});
  journal->Checkpoint(2, Image(2));  // not answered yet
  journal->Log({3});
  Mutation mutation;
  const auto staged = journal->StageCapture(Image(3), {{"k", "v"}}, &mutation);
  ASSERT_TRUE(staged.ok());
  EXPECT_THAT(staged->parents, ElementsAre(Operation<PutState>(1, 0).record.id));
  EXPECT_THAT(staged->span_tokens, ElementsAre(3));
  EXPECT_EQ(staged->labels.at("k"), "v");
}

TEST_F(SessionJournalTest, StoredBlobsAreNotSentAgain) {
  auto journal = Journal();
  journal->Log({1, 2});
  journal->Checkpoint(2, Image(2, {"one"}));
  journal->Log({3});
  journal->Checkpoint(3, Image(3, {"one", "two"}));
  EXPECT_THAT(Operation<PutState>(1, 0).blobs, ElementsAre("one"));
  EXPECT_THAT(Operation<PutState>(3, 0).blobs, ElementsAre("", "two"));
  EXPECT_THAT(Operation<PutState>(3, 0).record.blob_hashes, ElementsAre("hash-one", "hash-two"));
  EXPECT_EQ(journal->bytes_stored(), 7 + 3 + 7 + 3);
}

TEST_F(SessionJournalTest, ACaptureElsewhereIsRefused) {
  auto journal = Journal();
  journal->Log({1, 2});
  Mutation mutation;
  EXPECT_TRUE(absl::IsInternal(journal->StageCapture(Image(3), {}, &mutation).status()));
  EXPECT_TRUE(mutation.operations.empty());
  journal->Checkpoint(5, Image(5));
  EXPECT_FALSE(journal->error().ok());
}

TEST_F(SessionJournalTest, AFailedWriteFailsEverythingAfterIt) {
  auto journal = Journal();
  int notified = 0;
  journal->SetObserver([&] { ++notified; });
  journal->Log({1});
  journal->Log({2});
  absl::Status final_status;
  Mutation mutation;
  journal->StageRecord(&mutation);
  journal->Commit(std::move(mutation), [&](const absl::Status& status) { final_status = status; });
  store_.Answer(absl::ResourceExhaustedError("disk full"));
  EXPECT_EQ(notified, 1);
  store_.Answer();
  store_.Answer();
  // The last write alone went well; the call must not say that its tokens are safe.
  EXPECT_TRUE(absl::IsResourceExhausted(final_status));
  EXPECT_EQ(ErrorInfoOf(final_status).reason(), "LIBRARY_FULL");
  EXPECT_EQ(journal->view().durable_token_count, 0);
  journal->SetObserver(nullptr);
}

TEST_F(SessionJournalTest, ANewSessionAppearsWithAllItsTokensAtOnce) {
  auto journal = Journal(/*created=*/false);
  journal->Log({1, 2, 3});
  EXPECT_TRUE(store_.mutations.empty());
  journal->Checkpoint(3, Image(3));
  ASSERT_EQ(store_.mutations.size(), 1u);
  EXPECT_EQ(store_.mutations[0].operations.size(), 1u);  // the state alone
  journal->Log({4});
  Mutation mutation;
  journal->StageRecord(&mutation);
  ASSERT_EQ(mutation.operations.size(), 2u);
  const auto& put = absl::get<PutSession>(mutation.operations[0]);
  EXPECT_TRUE(put.must_not_exist);
  EXPECT_EQ(put.record.head_position, 3);
  EXPECT_THAT(absl::get<AppendLog>(mutation.operations[1]).tokens, ElementsAre(4));
}

}  // namespace
}  // namespace anabranch
