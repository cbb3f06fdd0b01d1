// kill -9 at random moments under four writing threads: everything acknowledged is there after
// each, and nothing of what was not committed whole. The ledger of acknowledgements is in this
// process, which outlives the one that is killed.
#include <signal.h>

#include <chrono>
#include <random>
#include <thread>

#include "tests/crash/crash_driver.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

constexpr int kFewAcknowledgements = 5;  // a kill after fewer says little

TEST(StoreCrashTest, KillAtAnyMomentLosesNothingAcknowledged) {
  const int kills = FromEnvironment("ANABRANCH_CRASH_KILLS", 30);
  const int seed = FromEnvironment("ANABRANCH_CRASH_SEED", 1);
  SCOPED_TRACE(testing::Message() << "ANABRANCH_CRASH_SEED=" << seed);
  std::mt19937 random(seed);
  int valid = 0, total = 0;
  for (int library = 0; library * 10 < kills; ++library) {
    // A fresh library now and then keeps the check of a whole one short.
    TemporaryDirectory directory;
    StoreOptions options;
    options.directory = directory.path() + "/library";
    CrashLedger ledger;
    for (int kill_number = 0; kill_number < 10 && library * 10 + kill_number < kills;
         ++kill_number) {
      const int before = ledger.acknowledgements();
      const Driver driver = StartDriver(options.directory);
      // A third of the kills hit opening and recovery.
      const bool wait_for_commits = random() % 3 != 0;
      if (wait_for_commits && !ledger.Read(driver.pipe)) ADD_FAILURE() << "the driver failed";
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 80000));
      kill(driver.pid, SIGKILL);
      while (ledger.Read(driver.pipe)) {
      }
      const int status = driver.Reap();
      ASSERT_TRUE(WIFSIGNALED(status)) << "the driver ended with " << WEXITSTATUS(status);
      valid += ledger.acknowledgements() - before >= kFewAcknowledgements;
      absl::StatusOr<std::unique_ptr<StateStore>> store = OpenStateStore(options);
      ASSERT_TRUE(store.ok()) << store.status();
      ASSERT_NO_FATAL_FAILURE(ledger.Check(**store));
    }
    total += ledger.acknowledgements();
  }
  RecordProperty("acknowledged", total);
  EXPECT_GE(valid, kills / 3) << "too few commits between kills to mean anything";
}

}  // namespace
}  // namespace anabranch
