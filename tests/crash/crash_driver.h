// Starts store_crash_driver and keeps the ledger of what it acknowledged, in a process that
// outlives the one that is killed.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "tests/statestore/ledger_workload.h"

namespace anabranch {

inline constexpr int kCrashWriters = 4;

inline int FromEnvironment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  int number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : otherwise;
}

struct Driver {
  pid_t pid = -1;
  int pipe = -1;

  // Waits for its end; the wait status.
  int Reap() const {
    close(pipe);
    int status = 0;
    waitpid(pid, &status, 0);
    return status;
  }
};

// `more`: arguments after the number of writers.
inline Driver StartDriver(const std::string& directory, const std::vector<std::string>& more = {}) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  std::vector<std::string> words = {"store_crash_driver", directory, std::to_string(kCrashWriters)};
  words.insert(words.end(), more.begin(), more.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    close(ends[0]);
    close(ends[1]);
    execv(ANABRANCH_STORE_CRASH_DRIVER, arguments.data());
    _exit(127);
  }
  close(ends[1]);
  return {pid, ends[0]};
}

class CrashLedger {
 public:
  // Reads one message; false at the end of the pipe.
  bool Read(int pipe) {
    int32_t message[2];
    size_t got = 0;
    while (got < sizeof(message)) {
      const ssize_t count =
          read(pipe, reinterpret_cast<char*>(message) + got, sizeof(message) - got);
      if (count <= 0) return false;
      got += static_cast<size_t>(count);
    }
    if (message[0] < 0) {
      reached_ = message[1];
    } else {
      steps_[message[0]] = message[1];
      ++acknowledgements_;
    }
    return true;
  }
  // Nothing acknowledged is missing; the ledger takes over what else survived.
  void Check(StateStore& store) {
    for (int i = 0; i < kCrashWriters; ++i) {
      LedgerWriter writer(i);
      const absl::StatusOr<int> steps = writer.Recover(store);
      ASSERT_TRUE(steps.ok()) << steps.status();
      ASSERT_GE(*steps, steps_[i]) << "acknowledged steps of writer " << i << " are lost";
      ASSERT_LE(*steps, steps_[i] + 1) << "writer " << i;
      steps_[i] = *steps;
    }
  }
  int acknowledgements() const { return acknowledgements_; }
  // The crash point at which the driver said it died; -1: none.
  int TakeReached() { return std::exchange(reached_, -1); }

 private:
  int32_t steps_[kCrashWriters] = {};
  int acknowledgements_ = 0, reached_ = -1;
};

}  // namespace anabranch
