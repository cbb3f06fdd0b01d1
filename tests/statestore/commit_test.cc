// Group commit, linearizable compare-and-set, the bounded queue, and closing with work queued.
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "statestore/base/crash_point.h"
#include "tests/statestore/fault_file_system.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

class CommitTest : public LibraryTest {
 protected:
  CommitTest() : system_(std::make_shared<FaultFileSystem>()), env_(EnvironmentOn(system_)) {
    options_.env = env_.get();
  }
  ~CommitTest() override { Close(); }

  std::shared_ptr<FaultFileSystem> system_;
  std::unique_ptr<rocksdb::Env> env_;
};

TEST_F(CommitTest, MutationsThatArriveTogetherShareASync) {
  options_.group_commit_window = absl::Milliseconds(50);
  Reopen();
  const int64_t syncs_before = system_->syncs();
  constexpr int kMutations = 64;
  absl::BlockingCounter left(kMutations);
  std::atomic<int> good{0};
  for (int i = 0; i < kMutations; ++i) {
    store_->Commit(Of(NewSession(absl::StrCat("s", i))), [&](absl::Status status) {
      good += status.ok();
      left.DecrementCount();
    });
  }
  left.Wait();
  EXPECT_EQ(good, kMutations);
  EXPECT_LE(store_->stats().commit_seq, 8u);
  // One for the write-ahead log and one for the mark, for each group; and what a new log costs.
  EXPECT_LE(system_->syncs() - syncs_before, 2 * 8 + 4);
}

TEST_F(CommitTest, EveryAnswerFollowsItsOwnSync) {
  for (const uint64_t journal : {uint64_t{4} << 20, uint64_t{0}}) {
    options_.journal_bytes = journal;
    Reopen();
    const int64_t syncs_before = system_->syncs();
    const uint64_t seq_before = store_->stats().commit_seq;
    for (int i = 0; i < 5; ++i) {
      ASSERT_EQ(Commit(NewSession(absl::StrCat("s", i))), absl::OkStatus());
    }
    EXPECT_GE(system_->syncs() - syncs_before, journal != 0 ? 5 : 10);
    EXPECT_EQ(store_->stats().commit_seq - seq_before, 5u);
  }
}

// While the mark of one large group is moved, the batch of the next is written; each is answered
// after its own mark, in order. The hook holds the first mark until the second batch is there.
struct Overlap {
  StateStore* store = nullptr;
  std::atomic<int> taken{0}, marks{0};
  absl::Notification second_written;
  std::atomic<bool> overlapped{false};
  absl::Mutex mutex;
  std::vector<int> answers ABSL_GUARDED_BY(mutex);
  absl::BlockingCounter left{2};

  void Commit(int number) {
    store->Commit(Of(NewSession(absl::StrCat("s", number))),
                  [this, number](const absl::Status& status) {
                    EXPECT_EQ(status, absl::OkStatus());
                    absl::MutexLock lock(&mutex);
                    answers.push_back(number);
                    left.DecrementCount();
                  });
  }
  void Reach(CrashPoint point) {
    // With another commit behind it, the first group is left to the other thread.
    if (point == CrashPoint::kGroupTaken && ++taken == 1) Commit(2);
    if (point == CrashPoint::kBatchWritten && taken == 2) second_written.Notify();
    if (point == CrashPoint::kMarkWritten && ++marks == 1) {
      overlapped = second_written.WaitForNotificationWithTimeout(absl::Seconds(20));
    }
  }
};
Overlap* overlap = nullptr;

TEST_F(CommitTest, TheNextBatchIsWrittenWhileAMarkIsMoved) {
  options_.journal_bytes = 0;
  Reopen();
  Overlap own;
  own.store = store_.get();
  overlap = &own;
  crash_hook = [](CrashPoint point) { overlap->Reach(point); };
  own.Commit(1);
  own.left.Wait();
  crash_hook = nullptr;
  EXPECT_TRUE(own.overlapped);
  {
    absl::MutexLock lock(&own.mutex);
    EXPECT_EQ(own.answers, (std::vector<int>{1, 2}));
  }
  EXPECT_EQ(store_->stats().commit_seq, 2u);
  Reopen();
  EXPECT_EQ(store_->ListSessions(kTenant, "", {10, ""})->items.size(), 2u);
}

// The group after one whose mark could not be moved is on disk, perhaps, and is not acknowledged.
TEST_F(CommitTest, NoGroupIsAcknowledgedAfterAMarkThatFailed) {
  options_.journal_bytes = 0;
  Reopen();
  system_->FailSync(1, "high-water-mark");
  const absl::Status first = Commit(NewSession("first"));
  EXPECT_TRUE(absl::IsUnavailable(first)) << first;
  EXPECT_TRUE(absl::IsUnavailable(Commit(NewSession("second"))));
  EXPECT_TRUE(store_->stats().read_only);
  EXPECT_EQ(store_->stats().commit_seq, 0u);
}

// Each thread moves the ref from what it read to a state of its own. If two moves could start from
// the same state, the chain of the states that the ref went through would be shorter than the
// number of moves that succeeded.
TEST_F(CommitTest, CompareAndSetIsLinearizable) {
  constexpr int kThreads = 8, kMoves = 25;
  const StateRecord root = MakeState({0});
  ASSERT_EQ(Commit(Put(root), SetRef{kTenant, "main", root.id, ""}), absl::OkStatus());
  std::atomic<int> moves{0}, aborted{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (int mine = 0; mine < kMoves;) {
        const std::string from = store_->GetRef(kTenant, "main").value().state_id;
        const StateRecord parent = store_->GetState(kTenant, from).value();
        const StateRecord next = MakeState({1 + thread * 1000 + mine}, &parent);
        // One takes its time, or on a busy machine each may be done before the next begins.
        if (thread == 0) absl::SleepFor(absl::Milliseconds(2));
        const absl::Status status = Commit(Put(next), SetRef{kTenant, "main", next.id, from});
        mine += status.ok();
        moves += status.ok();
        aborted += absl::IsAborted(status);
        wrong += !status.ok() && !absl::IsAborted(status);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(aborted, 0) << "the threads never met";
  const std::string end = store_->GetRef(kTenant, "main")->state_id;
  EXPECT_EQ(store_->GetTokens(kTenant, end)->size(), 1u + moves);
  EXPECT_EQ(moves, kThreads * kMoves);
}

TEST_F(CommitTest, OperationsSeeThoseQueuedBeforeThem) {
  options_.group_commit_window = absl::Milliseconds(50);
  Reopen();
  const StateRecord a = MakeState({1}), b = MakeState({2}, &a);
  std::vector<absl::Status> answers(5);
  absl::BlockingCounter left(5);
  const auto commit = [&](int i, Mutation mutation) {
    store_->Commit(std::move(mutation), [&, i](absl::Status status) {
      answers[i] = std::move(status);
      left.DecrementCount();
    });
  };
  commit(0, Of(Put(a)));
  commit(1, Of(Put(b), SetRef{kTenant, "main", b.id, ""}));
  commit(2, Of(SetRef{kTenant, "main", a.id, ""}));
  commit(3, Of(DeleteState{kTenant, b.id}));
  commit(4, Of(DeleteRef{kTenant, "main"}, DeleteState{kTenant, b.id}));
  left.Wait();
  EXPECT_EQ(answers[0], absl::OkStatus());
  EXPECT_EQ(answers[1], absl::OkStatus());
  EXPECT_THAT(answers[2], FailsWith(absl::StatusCode::kAborted, b.id));
  EXPECT_THAT(answers[3], FailsWith(absl::StatusCode::kFailedPrecondition, "main"));
  EXPECT_EQ(answers[4], absl::OkStatus());
  EXPECT_TRUE(absl::IsNotFound(store_->GetState(kTenant, b.id).status()));
}

TEST_F(CommitTest, FullQueueRefusesInsteadOfBlocking) {
  options_.max_queued_bytes = 1 << 20;
  Reopen();
  absl::Notification hold, held;
  store_->Commit(Of(NewSession("first")), [&](absl::Status) {
    held.Notify();
    hold.WaitForNotification();
  });
  held.WaitForNotification();  // the writer is busy now
  absl::BlockingCounter left(4);
  std::atomic<int> refused{0}, good{0};
  for (int i = 0; i < 4; ++i) {
    store_->Commit(Of(Put(MakeState({i}), std::string(400 << 10, 'x'))), [&](absl::Status status) {
      good += status.ok();
      refused += absl::IsResourceExhausted(status);
      left.DecrementCount();
    });
  }
  hold.Notify();
  left.Wait();
  EXPECT_EQ(good, 2);
  EXPECT_EQ(refused, 2);
  EXPECT_EQ(Commit(Put(MakeState({9}), std::string(400 << 10, 'x'))), absl::OkStatus());
}

TEST_F(CommitTest, ClosingAnswersWhatIsQueuedAndKeepsIt) {
  std::atomic<int> good{0};
  for (int i = 0; i < 200; ++i) {
    store_->Commit(Of(NewSession(absl::StrCat("s", i))),
                   [&](absl::Status status) { good += status.ok(); });
  }
  Close();
  EXPECT_EQ(good, 200);
  Reopen();
  EXPECT_EQ(store_->ListSessions(kTenant, "", {1000, ""})->items.size(), 200u);
}

}  // namespace
}  // namespace anabranch
