// The process that store_crash_test and backup_crash_test kill: opens the library of argv[1] and
// commits with several threads until it dies; with a directory as argv[3] it is backed up there
// over and over. Each acknowledged step is written to standard output as two 32-bit
// numbers, writer and count of steps: less than a pipe writes atomically.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

#include "tests/statestore/ledger_workload.h"

namespace {

void Acknowledge(int writer, int steps) {
  const int32_t message[2] = {writer, steps};
  if (write(STDOUT_FILENO, message, sizeof(message)) != sizeof(message)) _exit(3);
}

void CommitUntilKilled(anabranch::StateStore& store, int number) {
  anabranch::LedgerWriter writer(number);
  if (!writer.Recover(store).ok()) _exit(4);
  for (;;) {
    if (!store.CommitAndWait(writer.Next()).ok()) _exit(5);
    Acknowledge(number, writer.number());
  }
}

void BackUpUntilKilled(anabranch::StateStore& store, const char* directory) {
  anabranch::BackupRequest request;
  request.directory = directory;
  request.keep = 2;
  for (;;) {
    if (!store.Backup(request).ok()) _exit(7);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return 2;
  anabranch::StoreOptions options;
  options.directory = argv[1];
  auto store = anabranch::OpenStateStore(options);
  if (!store.ok()) return 6;
  std::vector<std::thread> threads;
  for (int i = 0; i < std::atoi(argv[2]); ++i) {
    threads.emplace_back([&, i] { CommitUntilKilled(**store, i); });
  }
  if (argc == 4) threads.emplace_back([&] { BackUpUntilKilled(**store, argv[3]); });
  for (std::thread& thread : threads) thread.join();
}
