// After the database's disk failed, what was written before is read, what failed is not seen, and
// nothing on the disk changes until the library is opened again.
#include <rocksdb/env.h>

#include <fstream>
#include <iterator>
#include <map>

#include "statestore/fail_stop_files.h"
#include "tests/statestore/fault_file_system.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

class FailStopTest : public LibraryTest {
 protected:
  FailStopTest() : system_(std::make_shared<FaultFileSystem>()), env_(EnvironmentOn(system_)) {
    options_.env = env_.get();
    options_.journal_bytes = 0;
  }
  ~FailStopTest() override { Close(); }

  // The database's files but for what RocksDB tells people.
  std::map<std::string, std::string> Files() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(options_.directory + "/rocksdb")) {
      const std::string name = entry.path().filename();
      if (name.rfind("LOG", 0) == 0) continue;
      std::ifstream file(entry.path(), std::ios::binary);
      files[name] = {std::istreambuf_iterator<char>(file), {}};
    }
    return files;
  }

  std::shared_ptr<FaultFileSystem> system_;
  std::unique_ptr<rocksdb::Env> env_;
};

TEST_F(FailStopTest, WhatFailedIsNotSeenAndWhatWasBeforeIs) {
  for (const bool sync : {false, true}) {
    SCOPED_TRACE(sync);
    const std::string kept = sync ? "sync-kept" : "kept";
    ASSERT_EQ(Commit(NewSession(kept)), absl::OkStatus());
    sync ? system_->FailSync(1, ".log") : system_->FailChange(1);
    const absl::Status lost = Commit(NewSession("lost"));
    EXPECT_TRUE(system_->failed());
    // Unless RocksDB's own work came first and failed, which the next commit finds.
    if (!lost.ok()) {
      EXPECT_THAT(lost, FailsWith(absl::StatusCode::kUnavailable, "injected failure"));
    }
    EXPECT_THAT(Commit(NewSession("late")),
                FailsWith(absl::StatusCode::kUnavailable, "injected failure"));
    EXPECT_TRUE(store_->stats().read_only);
    EXPECT_TRUE(store_->GetSession(kTenant, kept).ok());
    EXPECT_EQ(store_->GetSession(kTenant, "lost").status().code(),
              lost.ok() ? absl::StatusCode::kOk : absl::StatusCode::kNotFound);
    Reopen();
    EXPECT_TRUE(store_->GetSession(kTenant, kept).ok());
    EXPECT_FALSE(store_->GetSession(kTenant, "late").ok());
    EXPECT_EQ(Commit(NewSession("next")), absl::OkStatus());
    EXPECT_EQ(Commit(DeleteSession{kTenant, "next"}), absl::OkStatus());
  }
}

// What RocksDB would write of its memory has the failed write in it, and only a part of it.
TEST_F(FailStopTest, NothingOnDiskChangesAfterAFailure) {
  ASSERT_EQ(Commit(Put(MakeState({1}), std::string(100000, 'a'))), absl::OkStatus());
  system_->FailSync(1, ".log");
  ASSERT_TRUE(absl::IsUnavailable(Commit(Put(MakeState({2}), std::string(100000, 'b')))));
  const auto before = Files();
  const std::string copy = directory_.path() + "/backup";
  EXPECT_THAT(store_->Backup({copy, 0, 0, {}}).status(),
              FailsWith(absl::StatusCode::kUnavailable, "injected failure"));
  EXPECT_THAT(store_->CollectGarbage({}).status(),
              FailsWith(absl::StatusCode::kUnavailable, "injected failure"));
  EXPECT_TRUE(store_->GetState(kTenant, MakeState({1}).id).ok());
  Close();
  EXPECT_EQ(Files(), before);
}

// A table that cannot be written ends it as well, and the next commit says why.
TEST_F(FailStopTest, FailureInTheBackgroundIsFoundByTheNextCommit) {
  options_.write_buffer_bytes = 64u << 10;
  Reopen();
  int failures = 0, failures_of_database = 0;
  for (int n = 3; n < 40; ++n) {
    SCOPED_TRACE(n);
    system_->FailChange(n);
    absl::Status status;
    int written = 0;
    while (written < 60 && status.ok()) {
      status = Commit(Put(MakeState({n, written}), std::string(5000, 'x')));
      written += status.ok();
    }
    if (!status.ok()) {
      ++failures;
      EXPECT_THAT(status, FailsWith(absl::StatusCode::kUnavailable, "injected failure"));
    }
    for (int i = 0; i < written; ++i) {
      ASSERT_TRUE(store_->GetPayload(kTenant, MakeState({n, i}).id).ok()) << i;
    }
    // The other file that may fail is the mark's, which moves after the batch is durable.
    if (absl::StrContains(status.message(), "the database's disk")) {
      ++failures_of_database;
      EXPECT_FALSE(store_->GetState(kTenant, MakeState({n, written}).id).ok());
    }
    system_->FailChange(-1);
    Reopen();
  }
  EXPECT_GT(failures, 20);
  EXPECT_GT(failures_of_database, 10);
}

}  // namespace
}  // namespace anabranch
