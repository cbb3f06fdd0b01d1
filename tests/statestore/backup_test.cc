// Backups: what is restored elsewhere is what the library held at the backup's commit, byte for
// byte, also when it was written to meanwhile; what is damaged or incomplete is never trusted.
#include <atomic>
#include <fstream>
#include <thread>

#include "absl/strings/numbers.h"
#include "statestore/stopped_library.h"
#include "tests/statestore/ledger_workload.h"
#include "tests/statestore/library_fixture.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr int kWriters = 3;

int Rounds() {
  const char* value = std::getenv("ANABRANCH_BACKUP_ROUNDS");
  int number = 0;
  return value != nullptr && absl::SimpleAtoi(value, &number) ? number : 3;
}

// Commits until it is told to stop.
class Load {
 public:
  explicit Load(StateStore& store) {
    for (int i = 0; i < kWriters; ++i) {
      threads_.emplace_back([this, &store, i] {
        LedgerWriter writer(i);
        EXPECT_TRUE(writer.Recover(store).ok());
        while (!stop_) {
          EXPECT_TRUE(store.CommitAndWait(writer.Next()).ok());
          ++commits_;
        }
      });
    }
  }
  ~Load() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  void WaitForCommits(int count) const {
    const int goal = commits_ + count;
    while (commits_ < goal) std::this_thread::yield();
  }
  int commits() const { return commits_; }

 private:
  std::atomic<bool> stop_ = false;
  std::atomic<int> commits_ = 0;
  std::vector<std::thread> threads_;
};

class BackupTest : public LibraryTest {
 protected:
  void SetUp() override {
    options_.payload_part_bytes = 4 << 10;
    LibraryTest::SetUp();
  }
  std::string backups() const { return directory_.path() + "/backups"; }
  BackupInfo MustBackUp(BackupRequest request = {}) {
    if (request.directory.empty()) request.directory = backups();
    absl::StatusOr<BackupInfo> info = store_->Backup(request);
    EXPECT_TRUE(info.ok()) << info.status();
    return info.value_or(BackupInfo());
  }
  std::unique_ptr<StateStore> MustRestore(int64_t id, const std::string& name) {
    StoreOptions options;
    options.directory = directory_.path() + "/" + name;
    options.create_if_missing = false;
    const auto restored = RestoreBackup(backups(), id, options.directory, nullptr);
    EXPECT_TRUE(restored.ok()) << restored.status();
    auto store = OpenStateStore(options);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  void FlipByte(const fs::path& path, std::streamoff offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const char byte = static_cast<char>(file.get() ^ 0x40);
    file.seekp(offset);
    file.put(byte);
  }
  std::vector<fs::path> FilesOf(const std::string& directory) {
    std::vector<fs::path> files;
    for (const auto& file : fs::recursive_directory_iterator(directory)) {
      if (file.is_regular_file()) files.push_back(file.path());
    }
    return files;
  }
};

// Whether every state of `copy` is one of `source`, byte for byte.
void ExpectSubset(StateStore& copy, StateStore& source, size_t* states) {
  const auto all = copy.AllStates();
  ASSERT_TRUE(all.ok());
  *states = all->size();
  for (const StateName& name : *all) {
    const auto ours = copy.GetState(name.tenant, name.id);
    const auto theirs = source.GetState(name.tenant, name.id);
    ASSERT_TRUE(ours.ok() && theirs.ok()) << ours.status() << theirs.status();
    EXPECT_EQ(ours->etag, theirs->etag);
    EXPECT_EQ(ours->created, theirs->created);
    EXPECT_EQ(ours->header, theirs->header);
    ASSERT_EQ(copy.GetPayload(name.tenant, name.id).value(),
              source.GetPayload(name.tenant, name.id).value());
  }
}

TEST_F(BackupTest, ABackupUnderLoadIsTheLibraryAtItsCommit) {
  for (int round = 0; round < Rounds(); ++round) {
    SCOPED_TRACE(round);
    BackupInfo info;
    int during = 0;
    uint64_t before = 0;
    {
      Load load(*store_);
      load.WaitForCommits(20);
      before = store_->stats().commit_seq;
      during = load.commits();
      info = MustBackUp({.directory = backups(), .keep = 2});
      during = load.commits() - during;
      load.WaitForCommits(5);
    }
    EXPECT_GT(during, 0) << "no commit ran beside the backup";
    EXPECT_GE(info.commit_seq, before);
    EXPECT_LT(info.commit_seq, store_->stats().commit_seq);
    const std::string name = "restored-" + std::to_string(round);
    std::unique_ptr<StateStore> copy = MustRestore(info.id, name);
    ASSERT_NE(copy, nullptr);
    EXPECT_EQ(copy->stats().commit_seq, info.commit_seq);
    size_t states = 0, steps = 0;
    ExpectSubset(*copy, *store_, &states);
    // Each writer's steps are there up to one, with all their parts, and none of the next.
    for (int i = 0; i < kWriters; ++i) {
      const auto recovered = LedgerWriter(i).Recover(*copy);
      ASSERT_TRUE(recovered.ok()) << recovered.status();
      steps += *recovered;
    }
    EXPECT_EQ(steps, states);
    copy.reset();
    fs::remove_all(directory_.path() + "/" + name);
  }
  EXPECT_LE(ListBackups(backups())->size(), 2u);
}

TEST_F(BackupTest, TheNextBackupCopiesWhatIsNew) {
  const std::string payload(4 << 20, 'p');
  ASSERT_TRUE(Commit(Put(MakeState({1}), payload)).ok());
  const BackupInfo first = MustBackUp();
  EXPECT_GT(first.new_bytes, payload.size());
  ASSERT_TRUE(Commit(Put(MakeState({2}), "small")).ok());
  const BackupInfo second = MustBackUp();
  EXPECT_LT(second.new_bytes, payload.size() / 4);
  EXPECT_GT(second.size_bytes, payload.size());
  const auto listed = ListBackups(backups());
  ASSERT_THAT(*listed, SizeIs(2));
  EXPECT_EQ((*listed)[0].id, second.id);
  EXPECT_EQ((*listed)[0].commit_seq, store_->stats().commit_seq);
  EXPECT_EQ((*listed)[1].commit_seq, first.commit_seq);
  EXPECT_TRUE((*listed)[0].problem.empty() && (*listed)[1].problem.empty());
  // The older one is still what it was.
  std::unique_ptr<StateStore> copy = MustRestore(first.id, "older");
  EXPECT_THAT(copy->AllStates().value(), SizeIs(1));
}

TEST_F(BackupTest, EveryDamagedFileIsFound) {
  ASSERT_TRUE(Commit(Put(MakeState({1}), std::string(100000, 'p')), NewSession("chat")).ok());
  const BackupInfo info = MustBackUp();
  ASSERT_TRUE(VerifyBackup(backups(), info.id).ok()) << VerifyBackup(backups(), 0).status();
  int files = 0;
  for (const fs::path& path : FilesOf(backups())) {
    const auto bytes = static_cast<std::streamoff>(fs::file_size(path));
    if (bytes == 0) continue;  // LOCK
    ++files;
    SCOPED_TRACE(path);
    FlipByte(path, bytes / 2);
    EXPECT_FALSE(VerifyBackup(backups(), info.id).ok());
    EXPECT_FALSE(RestoreBackup(backups(), info.id, directory_.path() + "/no", nullptr).ok());
    EXPECT_FALSE(fs::exists(directory_.path() + "/no/high-water-mark"));
    FlipByte(path, bytes / 2);
    const fs::path moved = path.string() + ".moved";
    fs::rename(path, moved);
    EXPECT_FALSE(VerifyBackup(backups(), info.id).ok());
    fs::rename(moved, path);
  }
  EXPECT_GT(files, 5);
  EXPECT_TRUE(VerifyBackup(backups(), info.id).ok());
}

TEST_F(BackupTest, ACancelledBackupLeavesTheOnesBefore) {
  ASSERT_TRUE(Commit(Put(MakeState({1}), std::string(20 << 20, 'p'))).ok());
  const BackupInfo first = MustBackUp();
  ASSERT_TRUE(Commit(Put(MakeState({2}), std::string(20 << 20, 'q'))).ok());
  BackupRequest request;
  request.directory = backups();
  for (const std::string phase : {"copying", "verifying"}) {
    request.observer = [&](const BackupProgress& progress) { return progress.phase != phase; };
    EXPECT_TRUE(absl::IsCancelled(store_->Backup(request).status())) << phase;
    EXPECT_EQ(VerifyBackup(backups(), 0)->id, first.id);
  }
  const BackupInfo next = MustBackUp();
  EXPECT_EQ(VerifyBackup(backups(), 0)->id, next.id);
  EXPECT_THAT(*ListBackups(backups()), SizeIs(2));
}

TEST_F(BackupTest, WhatIsAskedForWronglyIsRefusedWithTheReason) {
  EXPECT_THAT(ListBackups(backups()).status(),
              FailsWith(absl::StatusCode::kNotFound, "holds no backups"));
  ASSERT_TRUE(Commit(Put(MakeState({1}))).ok());
  MustBackUp();
  EXPECT_THAT(VerifyBackup(backups(), 9).status(),
              FailsWith(absl::StatusCode::kNotFound, "no backup 9"));
  EXPECT_THAT(RestoreBackup(backups(), 0, options_.directory, nullptr).status(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "is not empty"));
  options_.directory = directory_.path() + "/another";
  Reopen();
  BackupRequest request;
  request.directory = backups();
  EXPECT_THAT(store_->Backup(request).status(),
              FailsWith(absl::StatusCode::kFailedPrecondition, "another library"));
}

TEST_F(BackupTest, AnInterruptedRestoreIsNoLibraryAndIsReplaced) {
  ASSERT_TRUE(Commit(Put(MakeState({1}))).ok());
  const BackupInfo info = MustBackUp();
  const std::string target = directory_.path() + "/target";
  fs::create_directories(target + "/rocksdb.restoring");
  std::ofstream(target + "/rocksdb.restoring/CURRENT") << "half of it";
  StoreOptions options;
  options.directory = target;
  options.create_if_missing = false;
  EXPECT_TRUE(absl::IsNotFound(OpenStateStore(options).status()));
  ASSERT_TRUE(RestoreBackup(backups(), info.id, target, nullptr).ok());
  EXPECT_TRUE(OpenStateStore(options).ok());
}

TEST_F(BackupTest, ABackupIsCheckedWhereItLies) {
  const StateRecord root = MakeState({1});
  ASSERT_TRUE(Commit(Put(root), SetRef{kTenant, "main", root.id, {}}).ok());
  MustBackUp();
  const auto copy = StoppedLibrary::OpenBackup(backups(), 0);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->commit_seq(), store_->stats().commit_seq);
  int64_t states = 0;
  std::string at;
  do {
    const auto step = (*copy)->Next(at, 1 << 20);
    ASSERT_TRUE(step.ok()) << step.status();
    EXPECT_THAT(step->damaged, SizeIs(0));
    states += step->states_checked;
    at = step->next;
  } while (!at.empty());
  EXPECT_EQ(states, 1);
}

}  // namespace
}  // namespace anabranch
