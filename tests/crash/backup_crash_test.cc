// kill -9 at random moments while a library is written to and backed up over and over: a backup
// that says it is complete can be restored and is whole, and one that was interrupted never passes.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "absl/strings/numbers.h"
#include "statestore/backup.h"
#include "tests/crash/backup_ledger.h"
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

// Whether a backup is under way that began after `since`: RocksDB makes its folder first, and the
// folder of one that was interrupted is removed before.
bool IsBackingUp(const std::string& backups, fs::file_time_type since) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(backups + "/private", error)) {
    std::error_code gone;
    const auto changed = entry.last_write_time(gone);
    const std::string id = entry.path().filename();
    if (!gone && changed > since && !fs::exists(backups + "/anabranch/" + id)) return true;
  }
  return false;
}

size_t Complete(const std::string& backups) {
  const auto listed = ListBackups(backups);
  size_t complete = 0;
  if (!listed.ok()) return complete;
  for (const BackupInfo& each : *listed) {
    if (each.problem.empty()) complete = std::max<size_t>(complete, each.id);
  }
  return complete;
}

TEST(BackupCrashTest, NoInterruptedBackupEverPasses) {
  const int kills = FromEnvironment("ANABRANCH_BACKUP_KILLS", 10);
  const int seed = FromEnvironment("ANABRANCH_CRASH_SEED", 1);
  SCOPED_TRACE(testing::Message() << "ANABRANCH_CRASH_SEED=" << seed);
  std::mt19937 random(seed);
  int during = 0, restored = 0, interrupted = 0;
  for (int library = 0; library * 10 < kills; ++library) {
    TemporaryDirectory directory;
    const std::string backups = directory.path() + "/backups";
    BackupLedger checked(backups, kWriters);
    for (int i = 0; i < 10 && library * 10 + i < kills; ++i) {
      const size_t before = Complete(backups);
      const auto start = fs::file_time_type::clock::now();
      const pid_t pid = StartDriver(directory.path() + "/library", backups);
      // Every other kill comes after a backup of this run is complete, inside the next.
      const auto wait = [](const auto& until) {
        while (!until()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      };
      if (i % 2 == 0) wait([&] { return Complete(backups) > before; });
      wait([&] { return IsBackingUp(backups, start); });
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 120000));
      kill(pid, SIGKILL);
      int status = 0;
      waitpid(pid, &status, 0);
      ASSERT_TRUE(WIFSIGNALED(status)) << "the driver ended with " << WEXITSTATUS(status);
      during += IsBackingUp(backups, start);
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
  EXPECT_GE(restored, kills / 3) << "too few backups were complete to mean anything";
}

}  // namespace
}  // namespace anabranch
