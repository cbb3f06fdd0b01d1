// What is left after the power goes, after failing writes and syncs, and on a full disk. All on a
// file system that forgets what was not synced.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <thread>

#include "absl/strings/numbers.h"
#include "tests/statestore/fault_file_system.h"
#include "tests/statestore/ledger_workload.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

constexpr int kWriters = 3;

int FromEnvironment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  int number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

// A library on a file system with faults, and the count of acknowledged steps of each writer.
class FaultyLibrary {
 public:
  // `number`: every third library has no journal; the others' are full soon. Every second one has
  // its tables written all the time, and with them its log changed. Half have most payloads in
  // parts.
  FaultyLibrary(const std::string& directory, int number) {
    options_.directory = directory;
    options_.journal_bytes = number % 3 == 0 ? 0 : 128u << 10;
    if (number % 2 == 0) options_.write_buffer_bytes = 64u << 10;
    if (number % 4 < 2) options_.payload_part_bytes = 256;
    options_.block_cache_bytes = 1 << 20;
    Plug();
  }
  // The unplugged machine: everything in memory is gone.
  void LosePower(uint64_t seed, bool keep_nothing) {
    system_->Crash();
    store_.reset();
    system_->LosePower(seed, keep_nothing);
    env_.reset();
    Plug();
  }
  absl::Status Open() {
    store_.reset();
    absl::StatusOr<std::unique_ptr<StateStore>> store = OpenStateStore(options_);
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    return absl::OkStatus();
  }
  // All writers commit up to `steps` steps each, or until the first failure.
  void Write(int steps) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kWriters; ++i) {
      threads.emplace_back([this, i, steps] {
        LedgerWriter writer(i);
        if (!writer.Recover(*store_).ok()) return;
        for (int step = 0; step < steps; ++step) {
          failure_[i] = store_->CommitAndWait(writer.Next());
          if (!failure_[i].ok()) return;
          acknowledged_[i] = writer.number();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  // Once there is space again. What RocksDB began on the full disk may fail a moment later still,
  // which refuses one more group.
  void WriteAgain(int steps) {
    const auto refused = [](const absl::Status& status) { return !status.ok(); };
    for (int i = 0; i < 5; ++i) {
      Write(steps);
      if (std::none_of(std::begin(failure_), std::end(failure_), refused)) return;
    }
  }
  // Everything acknowledged is there, and at most the one step more that was under way.
  void ExpectNothingLost() {
    for (int i = 0; i < kWriters; ++i) {
      LedgerWriter writer(i);
      const absl::StatusOr<int> steps = writer.Recover(*store_);
      ASSERT_TRUE(steps.ok()) << steps.status();
      EXPECT_GE(*steps, acknowledged_[i]) << "acknowledged steps of writer " << i << " are lost";
      EXPECT_LE(*steps, acknowledged_[i] + 1);
      acknowledged_[i] = *steps;
    }
  }
  // After a failure: everything is refused, with the reason, but reading.
  void ExpectStopped() {
    for (const absl::Status& failure : failure_) {
      EXPECT_THAT(failure.code(), testing::Eq(absl::StatusCode::kUnavailable)) << failure;
    }
    const StoreStats stats = store_->stats();
    EXPECT_TRUE(stats.read_only);
    EXPECT_THAT(stats.read_only_reason, testing::HasSubstr("injected failure"));
    EXPECT_TRUE(store_->ListRefs("ledger", "", {}).ok());
    LedgerWriter late(99);
    EXPECT_THAT(store_->CommitAndWait(late.Next()),
                FailsWith(absl::StatusCode::kUnavailable, "injected failure"));
  }
  int acknowledged() const { return acknowledged_[0] + acknowledged_[1] + acknowledged_[2]; }
  const absl::Status& failure(int writer) const { return failure_[writer]; }
  FaultFileSystem& system() { return *system_; }
  StateStore& store() { return *store_; }
  StoreOptions& options() { return options_; }

 private:
  void Plug() {
    system_ = std::make_shared<FaultFileSystem>();
    env_ = EnvironmentOn(system_);
    options_.env = env_.get();
  }

  StoreOptions options_;
  std::shared_ptr<FaultFileSystem> system_;
  std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<StateStore> store_;
  int acknowledged_[kWriters] = {};
  absl::Status failure_[kWriters];
};

// Two power losses at moments that the seed decides; the count of acknowledged steps.
void LosePowerTwice(int seed, int* acknowledged) {
  SCOPED_TRACE(testing::Message() << "ANABRANCH_POWER_LOSS_FIRST_SEED=" << seed);
  TemporaryDirectory directory;
  FaultyLibrary library(directory.path() + "/library", seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2; ++round) {
    ASSERT_EQ(library.Open(), absl::OkStatus());
    ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
    std::thread writers([&] { library.Write(400); });
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 30));
    library.system().Crash();
    writers.join();
    library.LosePower(random(), seed % 4 == 0);
  }
  ASSERT_EQ(library.Open(), absl::OkStatus());
  ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
  *acknowledged = library.acknowledged();
}

TEST(PowerLossTest, NothingAcknowledgedIsLostAtAnyMoment) {
  const int seeds = FromEnvironment("ANABRANCH_POWER_LOSS_SEEDS", 100);
  const int first = FromEnvironment("ANABRANCH_POWER_LOSS_FIRST_SEED", 1);
  int acknowledged = 0;
  for (int seed = first; seed < first + seeds; ++seed) {
    int steps = 0;
    ASSERT_NO_FATAL_FAILURE(LosePowerTwice(seed, &steps));
    acknowledged += steps;
  }
  EXPECT_GT(acknowledged, 20 * seeds) << "too few commits to mean anything";
}

// The power goes again while the library is recovered, up to five times in a row.
TEST(PowerLossTest, NothingIsLostWhenThePowerGoesDuringRecovery) {
  const int seeds = FromEnvironment("ANABRANCH_NESTED_CRASH_SEEDS", 10);
  int interrupted = 0;
  for (int seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE(seed);
    TemporaryDirectory directory;
    FaultyLibrary library(directory.path() + "/library", seed);
    std::mt19937_64 random(seed);
    ASSERT_EQ(library.Open(), absl::OkStatus());
    library.Write(static_cast<int>(5 + random() % 20));
    ASSERT_GT(library.acknowledged(), 0);
    library.LosePower(random(), seed % 2 == 0);
    for (int nested = 0; nested < 5; ++nested) {
      library.system().CrashAtChange(static_cast<int64_t>(1 + random() % 30));
      interrupted += !library.Open().ok();
      library.LosePower(random(), random() % 2 == 0);
    }
    ASSERT_EQ(library.Open(), absl::OkStatus());
    ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
  }
  EXPECT_GT(interrupted, seeds) << "too few crashes in recovery to mean anything";
}

// The same test must see a store that does not sync.
TEST(PowerLossTest, IgnoredSyncsAreNoticed) {
  TemporaryDirectory directory;
  FaultyLibrary library(directory.path() + "/library", 1);
  ASSERT_EQ(library.Open(), absl::OkStatus());
  library.Write(1);
  library.system().IgnoreSyncs(true);
  library.Write(10);
  ASSERT_EQ(library.acknowledged(), kWriters * 11);
  library.LosePower(1, /*keep_nothing=*/true);
  ASSERT_EQ(library.Open(), absl::OkStatus()) << "the mark was lost along with the commits";
  LedgerWriter writer(0);
  EXPECT_LT(writer.Recover(library.store()).value(), 11);
}

TEST(PowerLossTest, LibraryThatWasBeingCreatedIsCreatedAgain) {
  for (int n = 1; n <= 60; n += 3) {
    SCOPED_TRACE(n);
    TemporaryDirectory directory;
    FaultyLibrary library(directory.path() + "/library", n);
    library.system().FailChange(n);
    if (library.Open().ok() && !library.system().failed()) break;
    library.LosePower(n, n % 2 == 0);
    ASSERT_EQ(library.Open(), absl::OkStatus());
    library.Write(2);
    ASSERT_EQ(library.acknowledged(), kWriters * 2);
  }
}

// A file that could not be removed is in nobody's way: RocksDB removes what it no longer needs in
// the background, and when it opens a library.
TEST(FailingDiskTest, FailureAtAnyChangeLosesNothingAndStopsWriting) {
  const int positions = FromEnvironment("ANABRANCH_FAULT_POSITIONS", 100);
  int stopped = 0, removals = 0;
  for (int n = 1; n <= positions; ++n) {
    SCOPED_TRACE(n);
    TemporaryDirectory directory;
    FaultyLibrary library(directory.path() + "/library", n);
    ASSERT_EQ(library.Open(), absl::OkStatus());
    library.system().FailChange(n);
    library.Write(40 + n);  // more than n changes
    ASSERT_TRUE(library.system().failed());
    if (library.system().failed_removal()) {
      ++removals;
      for (int i = 0; i < kWriters; ++i) EXPECT_EQ(library.failure(i), absl::OkStatus());
      EXPECT_FALSE(library.store().stats().read_only);
    } else {
      ++stopped;
      library.ExpectStopped();
    }
    library.LosePower(n, n % 2 == 0);
    ASSERT_EQ(library.Open(), absl::OkStatus());
    ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
  }
  std::cout << removals << " of " << positions << " failures were of removals\n";
  EXPECT_GT(stopped, positions * 9 / 10);
}

TEST(FailingDiskTest, AFailedSyncIsFinalWhereverItHappens) {
  for (int n = 1; n <= FromEnvironment("ANABRANCH_SYNC_FAULT_POSITIONS", 30); ++n) {
    SCOPED_TRACE(n);
    TemporaryDirectory directory;
    FaultyLibrary library(directory.path() + "/library", n);
    ASSERT_EQ(library.Open(), absl::OkStatus());
    library.system().FailSync(n);
    library.Write(400);
    ASSERT_TRUE(library.system().failed());
    EXPECT_TRUE(library.store().stats().read_only);
    LedgerWriter late(99);
    EXPECT_THAT(library.store().CommitAndWait(late.Next()),
                FailsWith(absl::StatusCode::kUnavailable, "injected failure"));
    library.LosePower(n, n % 2 == 0);
    ASSERT_EQ(library.Open(), absl::OkStatus());
    ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
  }
}

TEST(FullDiskTest, CommitsAreRefusedThenAcceptedAgainOnceThereIsSpace) {
  // Three times full a library.
  const int cycles = FromEnvironment("ANABRANCH_FULL_DISK_CYCLES", 24);
  for (int seed = 0; seed * 3 < cycles; ++seed) {
    SCOPED_TRACE(seed);
    TemporaryDirectory directory;
    FaultyLibrary library(directory.path() + "/library", seed);
    for (int round = 0; round < 3; ++round) {
      // Odd seeds meet the full disk right after opening, with nothing in memory.
      ASSERT_EQ(library.Open(), absl::OkStatus());
      if (seed % 2 == 0) library.Write(5);
      // Half of the disks claim to have space, so that writes are torn.
      library.system().SetFull(true, seed % 4 < 2 ? 0 : 1u << 30);
      library.Write(5);
      for (int i = 0; i < kWriters; ++i) {
        EXPECT_THAT(library.failure(i), FailsWith(absl::StatusCode::kResourceExhausted, "full"));
      }
      ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
      EXPECT_FALSE(library.store().stats().read_only);
      library.Write(1);
      EXPECT_THAT(library.failure(0), FailsWith(absl::StatusCode::kResourceExhausted, "full"));
      ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
      library.system().SetFull(false);
      library.WriteAgain(5);
      for (int i = 0; i < kWriters; ++i) EXPECT_EQ(library.failure(i), absl::OkStatus());
      ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
      library.LosePower(seed, seed % 3 == 0);
    }
    ASSERT_EQ(library.Open(), absl::OkStatus());
    ASSERT_NO_FATAL_FAILURE(library.ExpectNothingLost());
    EXPECT_GE(library.acknowledged(), kWriters * 15);
  }
}

TEST(FullDiskTest, ReadsGoOnWhileTheDiskIsFullAndWhileItRecovers) {
  TemporaryDirectory directory;
  FaultyLibrary library(directory.path() + "/library", 1);
  ASSERT_EQ(library.Open(), absl::OkStatus());
  ASSERT_EQ(library.store().CommitAndWait({{NewSession("read")}}), absl::OkStatus());
  std::atomic<bool> stop{false};
  std::atomic<int> reads{0}, failures{0};
  std::thread reader([&] {
    for (; !stop; ++reads) failures += !library.store().GetSession(kTenant, "read").ok();
  });
  for (int round = 0; round < 8; ++round) {
    library.system().SetFull(true, round % 2 == 0 ? 0 : 1u << 30);
    library.Write(1);
    library.system().SetFull(false);
    library.WriteAgain(1);
    for (int i = 0; i < kWriters; ++i) EXPECT_EQ(library.failure(i), absl::OkStatus());
  }
  stop = true;
  reader.join();
  EXPECT_GT(reads, 20);
  EXPECT_EQ(failures, 0);
}

TEST(FullDiskTest, DeletingWorksOnADiskThatIsTooFullForNewContent) {
  TemporaryDirectory directory;
  FaultyLibrary library(directory.path() + "/library", 1);
  ASSERT_EQ(library.Open(), absl::OkStatus());
  ASSERT_EQ(library.store().CommitAndWait({{NewSession("old")}}), absl::OkStatus());
  library.system().SetFreeBytes(library.options().reserved_disk_bytes - 1);
  EXPECT_THAT(library.store().CommitAndWait({{NewSession("new")}}),
              FailsWith(absl::StatusCode::kResourceExhausted, "delete states"));
  EXPECT_EQ(library.store().CommitAndWait({{DeleteSession{kTenant, "old"}}}), absl::OkStatus());
  EXPECT_FALSE(library.store().GetSession(kTenant, "old").ok());
  EXPECT_FALSE(library.store().GetSession(kTenant, "new").ok());
}

}  // namespace
}  // namespace anabranch
