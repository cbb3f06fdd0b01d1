// A file system for tests: passes everything to the real one and remembers what is not durable yet
// (bytes since a file's last sync, directory entries since their directory's last sync). It can
// lose exactly that, as a power loss does; fail the n-th change; or be full.
//
// The RocksDB store gets it through StoreOptions::env. Thread safe.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace anabranch {

class FaultFileSystem : public rocksdb::FileSystemWrapper {
 public:
  FaultFileSystem();
  const char* Name() const override { return "FaultFileSystem"; }

  // The n-th change from now (1: the next) fails with an I/O error; later ones work again. A failed
  // append may leave half of its bytes; after a failed sync, the bytes it was for never get
  // durable.
  void FailChange(int64_t n);
  // The n-th sync from now fails in the same way; nothing else does. `of`: counts only files whose
  // paths end so; RocksDB syncs others in the background whenever it likes.
  void FailSync(int64_t n, std::string of = "");
  // The machine is gone at the n-th change from now.
  void CrashAtChange(int64_t n);
  bool failed() const;
  // What failed was the removal of a file, which costs nothing but space.
  bool failed_removal() const;
  // Every change that needs space fails, and appends leave half of their bytes.
  // `free_bytes`: what the file system claims to have left nevertheless, as with a quota.
  void SetFull(bool full, uint64_t free_bytes = 0);
  // As if full from the next sync on, which fails too: what was appended for it is there.
  void FillAtSync(uint64_t free_bytes);
  // Nothing fails, but no more than this is left.
  void SetFreeBytes(uint64_t free_bytes);
  // From now on every change fails: the machine is gone.
  void Crash();
  // After Crash, with all files closed: each thing that was not durable is lost, kept or torn by a
  // coin. Of torn bytes at a file's end a part is kept, or a coin decides for each sector, and
  // those that were not written read as zeros. `keep_nothing`: all of it is lost.
  void LosePower(uint64_t seed, bool keep_nothing);
  // Ignores syncs: they report success and make nothing durable. To show that tests notice.
  void IgnoreSyncs(bool ignore);
  int64_t syncs() const;

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewRandomRWFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                    rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus NewDirectory(const std::string& path, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus DeleteFile(const std::string& path, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to,
                               const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* debug) override;

  rocksdb::IOStatus GetFreeSpace(const std::string& path, const rocksdb::IOOptions& options,
                                 uint64_t* bytes, rocksdb::IODebugContext* debug) override;

  // For the files it hands out.
  enum class Change { kEntry, kRemoval, kAppend, kSync };
  rocksdb::IOStatus Before(Change change, const std::string& path = "");  // path: of a sync
  void Appended(const std::string& path, uint64_t bytes);
  void Synced(const std::string& path);
  void SyncFailed(const std::string& path);
  void Truncated(const std::string& path, uint64_t size);
  void Overwriting(const std::string& path, uint64_t offset, uint64_t bytes);
  void DirectorySynced(const std::string& directory);

 private:
  static constexpr uint64_t kPlenty = uint64_t{1} << 40;
  struct Overwrite {
    uint64_t offset;
    std::string before;
  };
  struct File {
    uint64_t size = 0, durable_size = 0;
    bool never_durable = false;  // a sync failed: a later one proves nothing
    std::vector<Overwrite> overwrites;
  };
  // What a directory entry was before it changed.
  struct Entry {
    std::string path;
    bool existed = false;
    std::string content;  // only kept for small files that are replaced
  };

  void UndoEntry(const Entry& entry);
  // Loses a part of what was appended since the last sync.
  static void TearEnd(const std::string& path, const File& file, std::mt19937_64& random);

  mutable std::mutex mutex_;
  std::map<std::string, File> files_;
  std::vector<Entry> entries_;
  int64_t changes_until_failure_ = -1, syncs_until_failure_ = -1, changes_until_crash_ = -1;
  std::string failing_sync_of_;
  int64_t syncs_ = 0;
  uint64_t free_bytes_ = kPlenty;
  bool failed_ = false, failed_removal_ = false, full_ = false, fills_at_sync_ = false,
       crashed_ = false, ignore_syncs_ = false;
};

// The environment to put into StoreOptions::env.
std::unique_ptr<rocksdb::Env> EnvironmentOn(std::shared_ptr<FaultFileSystem> file_system);

}  // namespace anabranch
