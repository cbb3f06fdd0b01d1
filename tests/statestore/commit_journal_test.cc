// Small commits become durable in the journal: with one sync, and whatever the power takes of the
// log behind it. What the journal is damaged by is reported, and nothing in a client's bytes is
// taken for a record.
#include "statestore/commit_journal.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>

#include "absl/synchronization/blocking_counter.h"
#include "statestore/high_water_mark.h"
#include "statestore/prefix_index.h"
#include "statestore/stopped_library.h"
#include "tests/statestore/fault_file_system.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kBlock = 4096;

class CommitJournalTest : public LibraryTest {
 protected:
  CommitJournalTest() { Plug(); }
  ~CommitJournalTest() override { Close(); }

  void Plug() {
    system_ = std::make_shared<FaultFileSystem>();
    env_ = EnvironmentOn(system_);
    options_.env = env_.get();
  }
  // The process ends where it is; what was written stays.
  void Kill() {
    system_->Crash();
    Close();
    Plug();
  }
  // And everything that was not synced is lost.
  void LosePower() {
    system_->Crash();
    Close();
    system_->LosePower(1, /*keep_nothing=*/true);
    Plug();
  }
  void CommitSessions(int from, int to) {
    for (int i = from; i < to; ++i) {
      ASSERT_EQ(Commit(NewSession("s" + std::to_string(i))), absl::OkStatus());
    }
  }
  // The disk gets full between a group's bytes and their sync; the next group finds space again.
  void RefuseAGroupThatSurvives(Operation refused = Put(MakeState({2}), "refused")) {
    system_->FillAtSync(1u << 30);  // it claims to have space
    EXPECT_THAT(Commit(std::move(refused)),
                FailsWith(absl::StatusCode::kResourceExhausted, "full"));
    system_->SetFull(false);
    for (int i = 0; i < 400 && !Commit(Put(MakeState({3}), "later")).ok(); ++i) {
      absl::SleepFor(absl::Milliseconds(10));
    }
  }
  size_t sessions() { return store_->ListSessions(kTenant, "", {10000, ""})->items.size(); }
  std::string journal() const { return options_.directory + "/commit-journal"; }
  uint64_t mark() const {
    return HighWaterMark::Read(*env_, options_.directory + "/high-water-mark")->commit_seq;
  }
  void FlipByte(uint64_t offset) {
    std::fstream file(journal(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  std::shared_ptr<FaultFileSystem> system_;
  std::unique_ptr<rocksdb::Env> env_;
};

TEST_F(CommitJournalTest, SmallCommitIsOneSyncAndALargeOneTwo) {
  const std::string large(options_.journal_bytes, 'l');
  // The journal may be emptied beside them, which is two syncs more: of several, the fewest count.
  int64_t fewest_small = 100, fewest_large = 100;
  for (int i = 0; i < 5; ++i) {
    const int64_t before = system_->syncs();
    CommitSessions(i, i + 1);
    const int64_t between = system_->syncs();
    ASSERT_EQ(Commit(Put(MakeState({i}), large)), absl::OkStatus());
    fewest_small = std::min(fewest_small, between - before);
    fewest_large = std::min(fewest_large, system_->syncs() - between);
  }
  EXPECT_EQ(fewest_small, 1);
  // The batch and the mark; before them the log up to the small one, unless it was synced
  // meanwhile.
  EXPECT_THAT(fewest_large, testing::AnyOf(2, 3));
}

// Whoever comes in numbers shares syncs anyway. In turn with lone commits nothing is lost.
TEST_F(CommitJournalTest, ManyCommitsTogetherGoPastTheJournal) {
  options_.group_commit_window = absl::Milliseconds(50);
  Reopen();
  const auto commit_together = [&](int from, int to) {
    absl::BlockingCounter left(to - from);
    for (int i = from; i < to; ++i) {
      store_->Commit(Of(NewSession("s" + std::to_string(i))), [&](const absl::Status& status) {
        EXPECT_EQ(status, absl::OkStatus());
        left.DecrementCount();
      });
    }
    left.Wait();
  };
  const auto empty = [&] {
    std::ifstream file(journal(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    return bytes.find_first_not_of('\0') == std::string::npos;
  };
  commit_together(0, 8);
  EXPECT_TRUE(empty());
  CommitSessions(8, 10);
  EXPECT_FALSE(empty());
  for (int from = 10; from < 40; from += 10) {
    commit_together(from, from + 8);
    CommitSessions(from + 8, from + 10);
  }
  LosePower();
  Reopen();
  EXPECT_EQ(sessions(), 40u);
}

TEST_F(CommitJournalTest, AcknowledgedCommitsSurviveWithoutTheLogBehindThem) {
  CommitSessions(0, 10);
  ASSERT_EQ(Commit(DeleteSession{kTenant, "s3"}), absl::OkStatus());
  LosePower();
  Reopen();
  EXPECT_EQ(sessions(), 9u);
  EXPECT_EQ(store_->stats().commit_seq, 11u);
  EXPECT_EQ(mark(), 11u);
  // The next life's numbers follow, and are kept as well.
  CommitSessions(10, 12);
  LosePower();
  Reopen();
  EXPECT_EQ(sessions(), 11u);
}

TEST_F(CommitJournalTest, FullJournalBeginsAnewAndLosesNothing) {
  options_.journal_bytes = 8 * kBlock;
  Reopen();
  CommitSessions(0, 50);
  // Small and large ones in turn.
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(Commit(Put(MakeState({i}), std::string(3 * kBlock, 'x'))), absl::OkStatus());
    CommitSessions(50 + i, 51 + i);
  }
  LosePower();
  EXPECT_EQ(fs::file_size(journal()), 8 * kBlock);
  Reopen();
  EXPECT_EQ(sessions(), 55u);
  EXPECT_EQ(store_->ListStates(kTenant, {}, {10, ""})->items.size(), 5u);
}

TEST_F(CommitJournalTest, IdleLibraryHasEverythingInItsLog) {
  CommitSessions(0, 3);
  for (int i = 0; i < 400 && mark() < 3; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(mark(), 3u);
  LosePower();
  fs::remove(journal());
  Reopen();
  EXPECT_EQ(sessions(), 3u);
}

TEST_F(CommitJournalTest, DamageToItIsReportedUnlessNothingRestsOnIt) {
  CommitSessions(0, 5);
  Kill();
  const std::string kept = directory_.path() + "/kept";
  fs::copy(options_.directory, kept, fs::copy_options::recursive);
  for (const uint64_t block : {0, 2, 3}) {
    SCOPED_TRACE(block);
    FlipByte(block * kBlock + 50);
    EXPECT_THAT(OpenStateStore(options_).status(),
                FailsWith(absl::StatusCode::kDataLoss, "acknowledged commits up to 5"));
    FlipByte(block * kBlock + 50);  // refused, it was not touched
  }
  FlipByte(2 * kBlock + 50);
  options_.accept_data_loss = true;
  Reopen();
  options_.accept_data_loss = false;
  Reopen();
  CommitSessions(5, 6);
  Close();
  // A library that was closed has nothing in its journal that it needs.
  for (uint64_t block = 0; block < 6; ++block) FlipByte(block * kBlock + 50);
  Reopen();
  EXPECT_TRUE(store_->GetSession(kTenant, "s5").ok());
}

TEST_F(CommitJournalTest, RedoneGroupsEndAsTheyWere) {
  ASSERT_EQ(Commit(Put(MakeState({1})), SetRef{kTenant, "main", MakeState({1}).id, {}}),
            absl::OkStatus());
  ASSERT_EQ(Commit(Put(MakeState({2})), SetRef{kTenant, "main", MakeState({2}).id, {}}),
            absl::OkStatus());
  ASSERT_EQ(Commit(DeleteState{kTenant, MakeState({1}).id}), absl::OkStatus());
  Kill();  // the log has all of it, and gets it again
  Reopen();
  EXPECT_EQ(store_->GetRef(kTenant, "main")->state_id, MakeState({2}).id);
  EXPECT_TRUE(absl::IsNotFound(store_->GetState(kTenant, MakeState({1}).id).status()));
  const StoreStats stats = store_->stats();
  EXPECT_EQ(stats.commit_seq, 3u);
}

// Bytes of a client that look like the record of a later group, at the start of a block.
TEST_F(CommitJournalTest, PayloadIsNeverTakenForARecord) {
  CommitSessions(0, 1);
  Kill();
  std::string forged(3 * kBlock, '\0');
  {
    std::ifstream file(journal(), std::ios::binary);
    std::string record(kBlock, '\0');
    file.read(record.data(), static_cast<std::streamsize>(record.size()));
    record[8] = 100;  // its number
    for (uint64_t at = 0; at + kBlock <= forged.size(); at += 8) {
      forged.replace(at, 8, record, at % kBlock, 8);
    }
  }
  Reopen();
  for (uint64_t shift = 0; shift < kBlock; shift += 512) {
    ASSERT_EQ(
        Commit(Put(MakeState({static_cast<int32_t>(shift)}), std::string(shift, 'a') + forged)),
        absl::OkStatus());
  }
  Kill();
  // The record that holds the payload is torn: its blocks are looked at one by one.
  FlipByte(10);
  EXPECT_THAT(OpenStateStore(options_).status(),
              FailsWith(absl::StatusCode::kDataLoss, "acknowledged commits up to 9"));
}

TEST_F(CommitJournalTest, GroupThatTheDiskHadNoRoomForIsNotDoneAgainOverLaterOnes) {
  CommitSessions(0, 2);
  system_->SetFull(true, 1u << 30);  // it claims to have space
  EXPECT_THAT(Commit(NewSession("refused")),
              FailsWith(absl::StatusCode::kResourceExhausted, "full"));
  system_->SetFull(false);
  absl::Status later = Commit(NewSession("later"));
  for (int i = 0; i < 5 && !later.ok(); ++i) later = Commit(NewSession("later"));
  ASSERT_EQ(later, absl::OkStatus());
  for (int i = 0; i < 400 && mark() < store_->stats().commit_seq; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  CommitSessions(2, 4);
  LosePower();
  Reopen();
  EXPECT_EQ(sessions(), 5u);
  EXPECT_FALSE(store_->GetSession(kTenant, "refused").ok());
}

// It may be there nevertheless, if the disk got full between its bytes and their sync.
TEST_F(CommitJournalTest, GroupThatTheDiskHadNoRoomForIsCountedIfItIsThere) {
  options_.journal_bytes = 0;
  Reopen();
  ASSERT_EQ(Commit(Put(MakeState({1}), "before")), absl::OkStatus());
  const uint64_t seq = store_->stats().commit_seq;
  RefuseAGroupThatSurvives();
  const auto there = static_cast<int64_t>(store_->ListStates(kTenant, {}, {100, ""})->items.size());
  EXPECT_EQ(there, 3) << "the test means a group that survived";
  EXPECT_EQ(store_->GetUse(kTenant).states, there);
  EXPECT_EQ(store_->stats().commit_seq, seq + 2);
  Reopen();
  EXPECT_EQ(store_->GetUse(kTenant).states, there);
}

TEST_F(CommitJournalTest, GroupThatTheDiskHadNoRoomForIsToldToTheObserverIfItIsThere) {
  options_.journal_bytes = 0;
  Reopen();
  std::vector<std::vector<StateName>> told;
  store_->SetObserver(
      [&](uint64_t, const std::vector<StateName>& states) { told.push_back(states); });
  RefuseAGroupThatSurvives();
  ASSERT_EQ(Commit(Put(MakeState({4}), "last")), absl::OkStatus());
  store_->SetObserver(nullptr);
  const auto stored = store_->ListStates(kTenant, {}, {100, ""})->items;
  ASSERT_EQ(stored.size(), 3u) << "the test means a group that survived";
  ASSERT_EQ(told.size(), 2u);
  std::set<std::string> first;
  for (const StateName& state : told[0]) first.insert(state.id);
  EXPECT_EQ(first.size(), 2u) << "what was refused and what came then";
  EXPECT_EQ(told[1].size(), 1u) << "told once";
}

// Or a search would go on finding it.
TEST_F(CommitJournalTest, StateThatARefusedGroupDeletedAfterAllIsToldToTheObserver) {
  options_.journal_bytes = 0;
  Reopen();
  const StateRecord stays = MakeState({0}), goes = MakeState({1});
  ASSERT_EQ(Commit(Put(stays), Put(goes)), absl::OkStatus());
  std::set<std::string> told;
  store_->SetObserver([&](uint64_t, const std::vector<StateName>& states) {
    for (const StateName& state : states) told.insert(state.id);
  });
  RefuseAGroupThatSurvives(DeleteState{kTenant, goes.id});
  store_->SetObserver(nullptr);
  ASSERT_FALSE(store_->GetState(kTenant, goes.id).ok()) << "the test means a group that survived";
  EXPECT_THAT(told, testing::UnorderedElementsAre(goes.id, MakeState({3}).id));
}

TEST_F(CommitJournalTest, LibraryOfTheFormerFormatGetsAJournal) {
  options_.journal_bytes = 0;
  Reopen();
  CommitSessions(0, 2);
  Close();
  fs::remove(journal());
  const std::string mark_path = options_.directory + "/high-water-mark";
  ASSERT_TRUE(HighWaterMark::Create(*env_, mark_path, {1, 2}).ok());
  options_.journal_bytes = 4u << 20;
  Reopen();
  EXPECT_EQ(HighWaterMark::Read(*env_, mark_path)->format_version, 3u);
  CommitSessions(2, 4);
  LosePower();
  Reopen();
  EXPECT_EQ(sessions(), 4u);
}

TEST_F(CommitJournalTest, StoppedLibraryThatLacksItsNewestCommitsSaysSo) {
  CommitSessions(0, 3);
  LosePower();
  EXPECT_THAT(StoppedLibrary::Open(options_.directory).status(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "start a server on it once"));
  Reopen();
  Close();
  EXPECT_TRUE(StoppedLibrary::Open(options_.directory).ok());
}

class NothingThere : public KeyValueReader {
 public:
  absl::StatusOr<std::optional<std::string>> Get(Family, absl::string_view) const override {
    return std::optional<std::string>();
  }
  absl::Status Scan(Family, absl::string_view, absl::string_view, Visitor) const override {
    return absl::OkStatus();
  }
};

TEST_F(CommitJournalTest, ChangesThatAreNoneAreRefused) {
  const NothingThere none;
  Overlay changes(none);
  changes.Put(Family::kRefs, "key", "value");
  changes.Delete(Family::kStates, "gone");
  const std::string bytes = EncodeChanges(changes);
  Overlay decoded(none);
  ASSERT_EQ(DecodeChanges(bytes, decoded), absl::OkStatus());
  EXPECT_EQ(EncodeChanges(decoded), bytes);
  for (size_t length = 1; length < bytes.size(); ++length) {
    Overlay part(none);
    const absl::Status status = DecodeChanges(bytes.substr(0, length), part);
    EXPECT_TRUE(!status.ok() || EncodeChanges(part) == bytes.substr(0, length)) << length;
  }
  Overlay bad(none);
  EXPECT_TRUE(absl::IsDataLoss(DecodeChanges(std::string("\xff\x01\x01kv", 5), bad)));
}

}  // namespace
}  // namespace anabranch
