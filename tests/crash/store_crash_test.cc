// kill -9 at random moments under four writing threads: everything acknowledged is there after
// each, and nothing of what was not committed whole. The ledger of acknowledgements is in this
// process, which outlives the one that is killed.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>

#include "absl/strings/numbers.h"
#include "tests/statestore/ledger_workload.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

constexpr int kWriters = 4;
constexpr int kFewAcknowledgements = 5;  // a kill after fewer says little

int FromEnvironment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  int number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

struct Driver {
  pid_t pid = -1;
  int pipe = -1;
};

Driver Start(const std::string& directory) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    execl(ANABRANCH_STORE_CRASH_DRIVER, "store_crash_driver", directory.c_str(),
          std::to_string(kWriters).c_str(), nullptr);
    _exit(127);
  }
  close(ends[1]);
  return {pid, ends[0]};
}

class Ledger {
 public:
  // Reads one acknowledgement; false at the end of the pipe.
  bool Read(int pipe) {
    int32_t message[2];
    size_t got = 0;
    while (got < sizeof(message)) {
      const ssize_t count =
          read(pipe, reinterpret_cast<char*>(message) + got, sizeof(message) - got);
      if (count <= 0) return false;
      got += static_cast<size_t>(count);
    }
    steps_[message[0]] = message[1];
    ++acknowledgements_;
    return true;
  }
  void Check(StateStore& store) {
    for (int i = 0; i < kWriters; ++i) {
      LedgerWriter writer(i);
      const absl::StatusOr<int> steps = writer.Recover(store);
      ASSERT_TRUE(steps.ok()) << steps.status();
      ASSERT_GE(*steps, steps_[i]) << "acknowledged steps of writer " << i << " are lost";
      ASSERT_LE(*steps, steps_[i] + 1) << "writer " << i;
      steps_[i] = *steps;
    }
  }
  int acknowledgements() const { return acknowledgements_; }

 private:
  int32_t steps_[kWriters] = {};
  int acknowledgements_ = 0;
};

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
    Ledger ledger;
    for (int kill_number = 0; kill_number < 10 && library * 10 + kill_number < kills;
         ++kill_number) {
      const int before = ledger.acknowledgements();
      const Driver driver = Start(options.directory);
      // A third of the kills hit opening and recovery.
      const bool wait_for_commits = random() % 3 != 0;
      if (wait_for_commits && !ledger.Read(driver.pipe)) ADD_FAILURE() << "the driver failed";
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 80000));
      kill(driver.pid, SIGKILL);
      while (ledger.Read(driver.pipe)) {
      }
      close(driver.pipe);
      int status = 0;
      waitpid(driver.pid, &status, 0);
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
