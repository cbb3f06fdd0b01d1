// kill -9 at random moments while a library is written to and backed up over and over: a backup
// that says it is complete can be restored and is whole, and one that was interrupted never passes.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <thread>

#include "absl/strings/numbers.h"
#include "statestore/backup.h"
#include "tests/statestore/ledger_workload.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

constexpr int kWriters = 2;

int FromEnvironment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  int number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

pid_t StartDriver(const std::string& library, const std::string& backups) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  const int nowhere = open("/dev/null", O_WRONLY);
  dup2(nowhere, STDOUT_FILENO);
  execl(ANABRANCH_STORE_CRASH_DRIVER, "store_crash_driver", library.c_str(),
        std::to_string(kWriters).c_str(), backups.c_str(), nullptr);
  _exit(127);
}

// Whether a new backup has begun: RocksDB makes its folder first.
bool HasUnfinished(const std::string& backups) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(backups + "/private", error)) {
    const std::string id = entry.path().filename();
    if (!fs::exists(backups + "/anabranch/" + id)) return true;
  }
  return false;
}

class Backups {
 public:
  explicit Backups(std::string directory) : directory_(std::move(directory)) {}

  void CheckAll(const std::string& scratch) {
    const auto listed = ListBackups(directory_);
    if (!listed.ok()) return;  // killed before the first
    for (const BackupInfo& backup : *listed) {
      SCOPED_TRACE(backup.id);
      const absl::Status verified = VerifyBackup(directory_, backup.id).status();
      if (!backup.problem.empty()) {
        ++interrupted_;
        EXPECT_FALSE(verified.ok()) << "an interrupted backup passed: " << backup.problem;
        continue;
      }
      ASSERT_TRUE(verified.ok()) << verified;
      if (backup.id <= last_checked_) continue;
      last_checked_ = backup.id;
      ASSERT_NO_FATAL_FAILURE(CheckRestored(backup, scratch));
      ++restored_;
    }
  }
  int restored() const { return restored_; }
  int interrupted() const { return interrupted_; }

 private:
  void CheckRestored(const BackupInfo& backup, const std::string& scratch) {
    fs::remove_all(scratch);
    ASSERT_TRUE(RestoreBackup(directory_, backup.id, scratch, nullptr).ok());
    StoreOptions options;
    options.directory = scratch;
    options.create_if_missing = false;
    auto store = OpenStateStore(options);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ((*store)->stats().commit_seq, backup.commit_seq);
    for (int i = 0; i < kWriters; ++i) {
      const auto steps = LedgerWriter(i).Recover(**store);
      EXPECT_TRUE(steps.ok()) << steps.status();
    }
  }

  const std::string directory_;
  int64_t last_checked_ = 0;
  int restored_ = 0, interrupted_ = 0;
};

TEST(BackupCrashTest, NoInterruptedBackupEverPasses) {
  const int kills = FromEnvironment("ANABRANCH_BACKUP_KILLS", 10);
  const int seed = FromEnvironment("ANABRANCH_CRASH_SEED", 1);
  SCOPED_TRACE(testing::Message() << "ANABRANCH_CRASH_SEED=" << seed);
  std::mt19937 random(seed);
  int during = 0, restored = 0, interrupted = 0;
  for (int library = 0; library * 10 < kills; ++library) {
    TemporaryDirectory directory;
    const std::string backups = directory.path() + "/backups";
    Backups checked(backups);
    for (int i = 0; i < 10 && library * 10 + i < kills; ++i) {
      const pid_t pid = StartDriver(directory.path() + "/library", backups);
      while (!HasUnfinished(backups)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 120000));
      kill(pid, SIGKILL);
      int status = 0;
      waitpid(pid, &status, 0);
      ASSERT_TRUE(WIFSIGNALED(status)) << "the driver ended with " << WEXITSTATUS(status);
      during += HasUnfinished(backups);
      ASSERT_NO_FATAL_FAILURE(checked.CheckAll(directory.path() + "/scratch"));
    }
    restored += checked.restored();
    interrupted += checked.interrupted();
  }
  std::printf(
      "%d kills, %d of them inside a backup; %d interrupted backups listed and refused, "
      "%d complete ones restored and whole\n",
      kills, during, interrupted, restored);
  EXPECT_GE(during, kills / 3) << "too few kills hit a backup to mean anything";
}

}  // namespace
}  // namespace anabranch
