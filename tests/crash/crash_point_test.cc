// A crash at each named point (statestore/base/crash_point.h), several times, often followed by
// crashes during the recovery from it: nothing acknowledged is lost, what is visible is whole, the
// books are right, nothing is left that leads nowhere, every complete backup restores whole and no
// interrupted one passes. Points that only a server passes are service_crash_test's.
//
// ANABRANCH_CRASH_POINT_HITS: crashes at each point (2). ANABRANCH_CRASH_POINT: only this one.
// ANABRANCH_CRASH_SEED: repeats a run.
#include "statestore/base/crash_point.h"

#include <algorithm>
#include <filesystem>
#include <random>

#include "statestore/database.h"
#include "statestore/tenant_use.h"
#include "tests/crash/backup_ledger.h"
#include "tests/crash/churn_workload.h"
#include "tests/crash/crash_driver.h"
#include "tests/statestore/library_fixture.h"
#include "tests/statestore/payload_keys.h"

namespace anabranch {
namespace {

constexpr int kPoints = static_cast<int>(CrashPoint::kCount);

// Only a library that is being created gets there.
bool IsOfCreation(CrashPoint point) {
  return point == CrashPoint::kNewFileWritten || point == CrashPoint::kNewFileRenamed ||
         point == CrashPoint::kNewFileDurable;
}
bool IsOfServer(CrashPoint point) {
  return point >= CrashPoint::kReencodingStep && point <= CrashPoint::kImportFinished;
}
bool IsOfBackup(CrashPoint point) {
  return point >= CrashPoint::kBackupInterruptedRemoved &&
         point <= CrashPoint::kBackupOldestRemoved;
}
bool IsOfRestore(CrashPoint point) {
  return point >= CrashPoint::kRestoreCopied && point <= CrashPoint::kRestoreRenamed;
}
bool IsOfOpening(CrashPoint point) { return point <= CrashPoint::kNewFileDurable; }

// How often the point is passed in a second, roughly: the crash is at a random one of these.
int MostPasses(CrashPoint point) {
  const bool once = point == CrashPoint::kGarbageFound || point == CrashPoint::kGarbageDropped;
  if (IsOfCreation(point)) return 2;  // the journal and the mark
  if (IsOfOpening(point) || IsOfRestore(point) || once) return 1;
  return point <= CrashPoint::kGroupHalfAnswered ? 30 : 3;
}

void CheckBooks(const StoreOptions& options) {
  const auto database =
      Database::Open(options.directory + "/rocksdb", options, Database::Mode::kInspect);
  ASSERT_TRUE(database.ok()) << database.status();
  const Snapshot snapshot(**database);
  const auto books = ReadUse(snapshot), counted = CountUse(snapshot);
  ASSERT_TRUE(books.ok() && counted.ok());
  for (const auto& [tenant, use] : *counted) {
    const auto book = books->find(tenant);
    ASSERT_NE(book, books->end()) << tenant;
    EXPECT_EQ(book->second.states, use.states) << tenant;
    EXPECT_EQ(book->second.archived, use.archived) << tenant;
    EXPECT_EQ(book->second.sessions, use.sessions) << tenant;
    EXPECT_EQ(book->second.refs, use.refs) << tenant;
    EXPECT_EQ(book->second.bytes, use.bytes) << tenant;
  }
}

class CrashPointTest : public testing::Test {
 protected:
  // A run that is to die at the point. False (and a failure) if it did not get there.
  bool CrashAt(CrashPoint point, int passes, const StoreOptions& options, CrashLedger& ledger) {
    const Driver driver = StartDriver(
        options.directory, {kCrashPointNames[static_cast<int>(point)], std::to_string(passes)});
    while (ledger.Read(driver.pipe)) {
    }
    const int status = driver.Reap();
    const bool reached = ledger.TakeReached() == static_cast<int>(point);
    EXPECT_TRUE(WIFSIGNALED(status) && reached)
        << "the driver ended with " << WEXITSTATUS(status) << " without reaching "
        << kCrashPointNames[static_cast<int>(point)];
    return reached;
  }
  // The library as it is left, with `nested` crashes more while it is recovered.
  void Verify(const StoreOptions& options, int nested, CrashLedger& ledger) {
    for (int i = 0; i < nested; ++i) {
      ASSERT_TRUE(CrashAt(i % 2 == 0 ? CrashPoint::kOpenRecovered : CrashPoint::kOpenMetaWritten, 1,
                          options, ledger));
    }
    {
      const auto store = OpenStateStore(options);
      ASSERT_TRUE(store.ok()) << store.status();
      ASSERT_NO_FATAL_FAILURE(ledger.Check(**store));
      ASSERT_EQ(Churn::Check(**store), absl::OkStatus());
      const auto garbage = (*store)->CollectGarbage({.dry_run = true});
      ASSERT_TRUE(garbage.ok()) << garbage.status();
      EXPECT_LE(garbage->stale_keys, planted_);
      EXPECT_EQ(garbage->orphaned_payloads, 0);
    }
    ASSERT_NO_FATAL_FAILURE(CheckBooks(options));
    ASSERT_EQ(CheckPayloadKeys(options), absl::OkStatus());
  }

  // Of the library, and of a place to which the newest of them is being restored.
  void VerifyBackups(CrashPoint point, const StoreOptions& options, BackupLedger& backups) {
    ASSERT_NO_FATAL_FAILURE(backups.CheckAll(options.directory + ".scratch"));
    if (!IsOfRestore(point)) return;
    StoreOptions restored;
    restored.directory = options.directory + ".restored";
    restored.create_if_missing = false;
    const std::string from = options.directory + ".backups";
    // Either the restore was complete, or it is no library, and the same command begins again.
    if (!OpenStateStore(restored).ok()) {
      const auto again = RestoreBackup(from, 0, restored.directory, nullptr);
      ASSERT_TRUE(again.ok()) << again.status();
    } else {
      EXPECT_EQ(point, CrashPoint::kRestoreRenamed);
    }
    {
      const auto store = OpenStateStore(restored);
      ASSERT_TRUE(store.ok()) << store.status();
      for (int i = 0; i < kCrashWriters; ++i) {
        const auto steps = LedgerWriter(i).Recover(**store);
        ASSERT_TRUE(steps.ok()) << steps.status();
      }
    }
    std::filesystem::remove_all(restored.directory);
  }

  int planted_ = 0;  // entries that lead nowhere, put there by the driver
};

TEST_F(CrashPointTest, NothingAcknowledgedIsLostAtAnyNamedPoint) {
  const int hits = FromEnvironment("ANABRANCH_CRASH_POINT_HITS", 2);
  const int seed = FromEnvironment("ANABRANCH_CRASH_SEED", 1);
  const char* only = std::getenv("ANABRANCH_CRASH_POINT");
  int reached[kPoints] = {}, nested_crashes = 0, acknowledged = 0;
  for (int i = 0; i < kPoints; ++i) {
    const CrashPoint point = static_cast<CrashPoint>(i);
    if (only != nullptr && std::string(only) != kCrashPointNames[i]) continue;
    if (IsOfServer(point)) continue;
    SCOPED_TRACE(testing::Message() << "ANABRANCH_CRASH_POINT=" << kCrashPointNames[i]
                                    << " ANABRANCH_CRASH_SEED=" << seed);
    std::mt19937 random(seed * 1000 + i);
    planted_ = point == CrashPoint::kGarbageFound || point == CrashPoint::kGarbageDropped ? 1 : 0;
    std::unique_ptr<TemporaryDirectory> directory;
    StoreOptions options;
    CrashLedger ledger;
    std::unique_ptr<BackupLedger> backups;
    for (int hit = 0; hit < hits; ++hit) {
      // A fresh library now and then keeps the check of a whole one short.
      if (directory == nullptr || hit % 5 == 0 || IsOfCreation(point)) {
        acknowledged += ledger.acknowledgements();
        directory = std::make_unique<TemporaryDirectory>();
        options.directory = directory->path() + "/library";
        ledger = CrashLedger();
        backups = std::make_unique<BackupLedger>(options.directory + ".backups", kCrashWriters);
        if (IsOfRestore(point)) {
          ASSERT_TRUE(CrashAt(CrashPoint::kBackupComplete, 1, options, ledger));
        }
      }
      if (point == CrashPoint::kOpenRedone) {  // there is something to do again
        ASSERT_TRUE(CrashAt(CrashPoint::kJournalSynced, 5, options, ledger));
      }
      const int passes = 1 + static_cast<int>(random() % MostPasses(point));
      ASSERT_TRUE(CrashAt(point, passes, options, ledger));
      ++reached[i];
      const int nested = random() % 4 == 0 ? 1 + static_cast<int>(random() % 5) : 0;
      ASSERT_NO_FATAL_FAILURE(Verify(options, nested, ledger));
      nested_crashes += nested;
      if (IsOfBackup(point) || IsOfRestore(point)) {
        ASSERT_NO_FATAL_FAILURE(VerifyBackups(point, options, *backups));
      }
    }
    acknowledged += ledger.acknowledgements();
  }
  int points = 0;
  for (int i = 0; i < kPoints; ++i) {
    points += reached[i] > 0;
    if (only == nullptr && !IsOfServer(static_cast<CrashPoint>(i))) {
      EXPECT_GE(reached[i], hits) << kCrashPointNames[i];
    }
  }
  EXPECT_GT(points, 0) << "no point of the store was asked for";
  std::printf("%d points, %d crashes each, %d nested ones, %d acknowledged steps, seed %d\n",
              points, hits, nested_crashes, acknowledged, seed);
}

}  // namespace
}  // namespace anabranch
