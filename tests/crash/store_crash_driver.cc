// The process that crash tests kill: opens the library of argv[1] and commits with argv[2] threads
// until it dies. Each acknowledged step is written to standard output as two 32-bit numbers, writer
// and count of steps: less than a pipe writes atomically.
//
// With a directory as argv[3] alone the library is backed up there over and over.
//
// With a crash point's name and a count as argv[3] and argv[4], states also come and go beside
// (churn_workload.h), and the process kills itself when it is at that point for the count-th time.
// Before that it writes -1 and the point. Ends with 7 if it does not get there in time. For a point
// of backups the library is backed up to argv[1] + ".backups" meanwhile; for one of restores the
// newest of these is restored to argv[1] + ".restored", and nothing else is done.
#include <rocksdb/db.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "statestore/backup.h"
#include "statestore/base/crash_point.h"
#include "statestore/key_schema.h"
#include "tests/crash/churn_workload.h"
#include "tests/statestore/fault_file_system.h"
#include "tests/statestore/ledger_workload.h"

namespace {

using anabranch::CrashPoint;

constexpr absl::Duration kPatience = absl::Seconds(60);

CrashPoint armed = CrashPoint::kCount;
std::atomic<int> left{0};

void Say(int32_t first, int32_t second) {
  const int32_t message[2] = {first, second};
  if (write(STDOUT_FILENO, message, sizeof(message)) != sizeof(message)) _exit(3);
}

void DieAtArmedPoint(CrashPoint point) {
  if (point != armed || left.fetch_sub(1) != 1) return;
  Say(-1, static_cast<int32_t>(point));
  kill(getpid(), SIGKILL);
}

bool Is(CrashPoint point, CrashPoint first, CrashPoint last) {
  return point >= first && point <= last;
}
bool NeedsFullDisk() {
  return Is(armed, CrashPoint::kFullDiskReadOnly, CrashPoint::kFullDiskReopened);
}
bool NeedsBackups() {
  return Is(armed, CrashPoint::kBackupInterruptedRemoved, CrashPoint::kBackupOldestRemoved);
}
bool NeedsRestore() { return Is(armed, CrashPoint::kRestoreCopied, CrashPoint::kRestoreRenamed); }
bool NeedsGarbage() { return Is(armed, CrashPoint::kGarbageFound, CrashPoint::kGarbageRewritten); }

// A commit that met the full disk may be there or not, and be seen only once the library is
// writable again: whoever wrote it looks, and looks again where the next one finds it there.
void CommitUntilKilled(anabranch::StateStore& store, int number) {
  anabranch::LedgerWriter writer(number);
  if (!writer.Recover(store).ok()) _exit(4);
  for (bool unsure = false;;) {
    const absl::Status status = store.CommitAndWait(writer.Next());
    if (status.ok()) {
      unsure = false;
      Say(number, writer.number());
      continue;
    }
    const bool full = NeedsFullDisk() && absl::IsResourceExhausted(status);
    if (!full && !(unsure && absl::IsAborted(status))) {
      std::fprintf(stderr, "commit: %s\n", status.ToString().c_str());
      _exit(5);
    }
    unsure = full;
    absl::SleepFor(absl::Milliseconds(1));
    if (!writer.Recover(store).ok()) _exit(4);
  }
}

// An index entry that leads nowhere, as damage that was healed can leave it.
void PlantStaleKey(const std::string& directory) {
  { (void)anabranch::OpenStateStore({.directory = directory}).value(); }
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (int i = 0; i < anabranch::kFamilies; ++i) {
    families.emplace_back(anabranch::FamilyName(static_cast<anabranch::Family>(i)),
                          rocksdb::ColumnFamilyOptions());
  }
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  if (!rocksdb::DB::Open({}, directory + "/rocksdb", families, &handles, &db).ok()) _exit(8);
  rocksdb::WriteOptions write;
  write.sync = true;
  const std::string missing = "st-0123456789012345678901234567890123456789";
  const std::string key =
      anabranch::EdgeKey(anabranch::Churn::kTenant, anabranch::Edge::kChild, missing, missing);
  const int edges = static_cast<int>(anabranch::Family::kEdges);
  if (!db->Put(write, handles[edges], key, "").ok()) _exit(8);
  for (auto* each : handles) (void)db->DestroyColumnFamilyHandle(each);
  delete db;
}

void ChurnUntilKilled(anabranch::StateStore& store) {
  // Numbers of an earlier life are put again, which changes nothing.
  for (int round = 0;; ++round) {
    const absl::Status status = anabranch::Churn::Round(store, round);
    if (!status.ok() && !(NeedsFullDisk() && absl::IsResourceExhausted(status))) _exit(9);
    if (!NeedsGarbage() || round % 4 != 1) continue;
    if (!store.CollectGarbage({.full = true}).ok()) _exit(10);
  }
}

void FillTheDiskNowAndThen(anabranch::FaultFileSystem& system) {
  for (;;) {
    absl::SleepFor(absl::Milliseconds(30));
    system.SetFull(true, uint64_t{1} << 30);  // it claims to have space: writes are torn
    absl::SleepFor(absl::Milliseconds(10));
    system.SetFull(false);
  }
}

// A backup that was interrupted, as a crash before its manifest leaves it.
void PlantInterruptedBackup(const std::string& directory) {
  std::error_code error;
  for (const auto& each : std::filesystem::directory_iterator(directory + "/anabranch", error)) {
    std::filesystem::remove(each, error);
  }
}

void BackUpUntilKilled(anabranch::StateStore& store, const std::string& directory) {
  anabranch::BackupRequest request;
  request.directory = directory;
  request.keep = 2;
  for (;;) {
    if (!store.Backup(request).ok()) _exit(7);
    if (armed == CrashPoint::kBackupInterruptedRemoved) PlantInterruptedBackup(directory);
  }
}

int Restore(const std::string& library) {
  const auto restored =
      anabranch::RestoreBackup(library + ".backups", 0, library + ".restored", nullptr);
  return restored.ok() ? 0 : 11;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) return 2;
  anabranch::StoreOptions options;
  options.directory = argv[1];
  options.payload_part_bytes = 4u << 10;  // a part of all states have several
  std::vector<std::thread> threads;
  std::shared_ptr<anabranch::FaultFileSystem> system;
  std::unique_ptr<rocksdb::Env> env;
  if (argc == 5) {
    for (int i = 0; i < static_cast<int>(CrashPoint::kCount); ++i) {
      if (std::strcmp(anabranch::kCrashPointNames[i], argv[3]) == 0) {
        armed = static_cast<CrashPoint>(i);
      }
    }
    if (armed == CrashPoint::kCount) return 2;
    if (Is(armed, CrashPoint::kGarbageFound, CrashPoint::kGarbageDropped)) {
      PlantStaleKey(options.directory);
    }
    left = std::atoi(argv[4]);
    options.journal_bytes = 128u << 10;  // is full, and begins anew, all the time
    options.write_buffer_bytes = 256u << 10;
    anabranch::crash_hook = DieAtArmedPoint;
    threads.emplace_back([] {
      absl::SleepFor(kPatience);
      _exit(7);
    });
  }
  if (NeedsRestore()) std::exit(Restore(options.directory));
  if (NeedsFullDisk()) {
    system = std::make_shared<anabranch::FaultFileSystem>();
    env = anabranch::EnvironmentOn(system);
    options.env = env.get();
  }
  auto store = anabranch::OpenStateStore(options);
  if (!store.ok()) return 6;
  for (int i = 0; i < std::atoi(argv[2]); ++i) {
    threads.emplace_back([&, i] { CommitUntilKilled(**store, i); });
  }
  if (argc == 4) threads.emplace_back([&] { BackUpUntilKilled(**store, argv[3]); });
  if (argc == 5) threads.emplace_back([&] { ChurnUntilKilled(**store); });
  if (NeedsBackups()) {
    threads.emplace_back([&] { BackUpUntilKilled(**store, options.directory + ".backups"); });
  }
  if (NeedsFullDisk()) FillTheDiskNowAndThen(*system);
  for (std::thread& thread : threads) thread.join();
}
