// What a crash may leave of the backups of a library that holds ledgers: complete ones that restore
// to a whole library at their own commit, and interrupted ones that never pass verification.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <utility>

#include "statestore/backup.h"
#include "statestore/state_store.h"
#include "tests/statestore/ledger_workload.h"

namespace anabranch {

class BackupLedger {
 public:
  // `writers`: of the ledger in the library.
  BackupLedger(std::string directory, int writers)
      : directory_(std::move(directory)), writers_(writers) {}

  // `scratch`: a folder to restore into, which is removed.
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
    std::filesystem::remove_all(scratch);
    ASSERT_TRUE(RestoreBackup(directory_, backup.id, scratch, nullptr).ok());
    StoreOptions options;
    options.directory = scratch;
    options.create_if_missing = false;
    auto store = OpenStateStore(options);
    ASSERT_TRUE(store.ok()) << store.status();
    EXPECT_EQ((*store)->stats().commit_seq, backup.commit_seq);
    for (int i = 0; i < writers_; ++i) {
      const auto steps = LedgerWriter(i).Recover(**store);
      EXPECT_TRUE(steps.ok()) << steps.status();
    }
  }

  const std::string directory_;
  const int writers_;
  int64_t last_checked_ = 0;
  int restored_ = 0, interrupted_ = 0;
};

}  // namespace anabranch
