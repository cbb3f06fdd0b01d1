#include "tests/statestore/fault_file_system.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

namespace anabranch {
namespace {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

std::string DirectoryOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

std::string Content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class FaultyWritableFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FaultyWritableFile(std::unique_ptr<rocksdb::FSWritableFile> file, std::string path,
                     FaultFileSystem& system)
      : FSWritableFileOwnerWrapper(std::move(file)), path_(std::move(path)), system_(system) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    const IOStatus allowed = system_.Before(FaultFileSystem::Change::kAppend);
    const Slice part = allowed.ok() ? data : Slice(data.data(), data.size() / 2);
    if (part.empty()) return allowed;
    const IOStatus appended = FSWritableFileOwnerWrapper::Append(part, options, debug);
    if (appended.ok()) system_.Appended(path_, part.size());
    return allowed.ok() ? appended : allowed;
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const rocksdb::DataVerificationInfo&,
                  IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    const IOStatus truncated = FSWritableFileOwnerWrapper::Truncate(size, options, debug);
    if (truncated.ok()) system_.Truncated(path_, size);
    return truncated;
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    const IOStatus allowed = system_.Before(FaultFileSystem::Change::kSync, path_);
    if (!allowed.ok()) {
      system_.SyncFailed(path_);
      return allowed;
    }
    const IOStatus flushed = FSWritableFileOwnerWrapper::Flush(options, debug);
    if (flushed.ok()) system_.Synced(path_);
    return flushed;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Sync(options, debug);
  }
  IOStatus RangeSync(uint64_t, uint64_t, const IOOptions&, IODebugContext*) override {
    return IOStatus::OK();  // promises nothing
  }

 private:
  const std::string path_;
  FaultFileSystem& system_;
};

class FaultyRandomRWFile : public rocksdb::FSRandomRWFileOwnerWrapper {
 public:
  FaultyRandomRWFile(std::unique_ptr<rocksdb::FSRandomRWFile> file, std::string path,
                     FaultFileSystem& system)
      : FSRandomRWFileOwnerWrapper(std::move(file)), path_(std::move(path)), system_(system) {}

  IOStatus Write(uint64_t offset, const Slice& data, const IOOptions& options,
                 IODebugContext* debug) override {
    const IOStatus allowed = system_.Before(FaultFileSystem::Change::kEntry);
    if (!allowed.ok()) return allowed;
    system_.Overwriting(path_, offset, data.size());
    return FSRandomRWFileOwnerWrapper::Write(offset, data, options, debug);
  }
  IOStatus Sync(const IOOptions&, IODebugContext*) override {
    const IOStatus allowed = system_.Before(FaultFileSystem::Change::kSync, path_);
    allowed.ok() ? system_.Synced(path_) : system_.SyncFailed(path_);
    return allowed;
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Sync(options, debug);
  }

 private:
  const std::string path_;
  FaultFileSystem& system_;
};

class FaultyDirectory : public rocksdb::FSDirectoryWrapper {
 public:
  FaultyDirectory(std::unique_ptr<rocksdb::FSDirectory> directory, std::string path,
                  FaultFileSystem& system)
      : FSDirectoryWrapper(std::move(directory)), path_(std::move(path)), system_(system) {}

  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    const IOStatus allowed = system_.Before(FaultFileSystem::Change::kSync, path_);
    if (allowed.ok()) system_.DirectorySynced(path_);
    return allowed;
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions&) override {
    return Fsync(options, debug);
  }

 private:
  const std::string path_;
  FaultFileSystem& system_;
};

}  // namespace

FaultFileSystem::FaultFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}

void FaultFileSystem::FailChange(int64_t n) {
  std::lock_guard<std::mutex> lock(mutex_);
  changes_until_failure_ = n;
  failed_ = failed_removal_ = false;
}

void FaultFileSystem::FailSync(int64_t n, std::string of) {
  std::lock_guard<std::mutex> lock(mutex_);
  syncs_until_failure_ = n;
  failing_sync_of_ = std::move(of);
  failed_ = failed_removal_ = false;
}

void FaultFileSystem::CrashAtChange(int64_t n) {
  std::lock_guard<std::mutex> lock(mutex_);
  changes_until_crash_ = n;
}

bool FaultFileSystem::failed() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failed_;
}

bool FaultFileSystem::failed_removal() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return failed_removal_;
}

void FaultFileSystem::SetFull(bool full, uint64_t free_bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  full_ = full;
  free_bytes_ = full ? free_bytes : kPlenty;
}

void FaultFileSystem::FillAtSync(uint64_t free_bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  fills_at_sync_ = true;
  free_bytes_ = free_bytes;
}

void FaultFileSystem::SetFreeBytes(uint64_t free_bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  free_bytes_ = free_bytes;
}

IOStatus FaultFileSystem::GetFreeSpace(const std::string&, const IOOptions&, uint64_t* bytes,
                                       IODebugContext*) {
  std::lock_guard<std::mutex> lock(mutex_);
  *bytes = free_bytes_;
  return IOStatus::OK();
}

void FaultFileSystem::Crash() {
  std::lock_guard<std::mutex> lock(mutex_);
  crashed_ = true;
}

void FaultFileSystem::IgnoreSyncs(bool ignore) {
  std::lock_guard<std::mutex> lock(mutex_);
  ignore_syncs_ = ignore;
}

int64_t FaultFileSystem::syncs() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return syncs_;
}

IOStatus FaultFileSystem::Before(Change change, const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (changes_until_crash_ > 0 && --changes_until_crash_ == 0) crashed_ = true;
  if (crashed_) return IOStatus::IOError("power is gone");
  const bool counts = change == Change::kSync && path.ends_with(failing_sync_of_);
  if (counts && syncs_until_failure_ > 0 && --syncs_until_failure_ == 0) {
    failed_ = true;
    return IOStatus::IOError("injected failure");
  }
  if (changes_until_failure_ > 0 && --changes_until_failure_ == 0) {
    failed_ = true;
    failed_removal_ = change == Change::kRemoval;
    return IOStatus::IOError("injected failure");
  }
  if (fills_at_sync_ && change == Change::kSync) {
    fills_at_sync_ = false;
    full_ = true;
    return IOStatus::NoSpace("injected: no space left");
  }
  if (full_ && change == Change::kAppend) return IOStatus::NoSpace("injected: no space left");
  if (change == Change::kSync) ++syncs_;
  return IOStatus::OK();
}

void FaultFileSystem::Appended(const std::string& path, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  files_[path].size += bytes;
}

void FaultFileSystem::Synced(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  File& file = files_[path];
  if (file.never_durable || ignore_syncs_) return;
  file.durable_size = file.size;
  file.overwrites.clear();
}

void FaultFileSystem::SyncFailed(const std::string& path) {
  std::lock_guard<std::mutex> lock(mutex_);
  files_[path].never_durable = true;
}

void FaultFileSystem::Truncated(const std::string& path, uint64_t size) {
  std::lock_guard<std::mutex> lock(mutex_);
  File& file = files_[path];
  file.size = size;
  file.durable_size = std::min(file.durable_size, size);
}

void FaultFileSystem::Overwriting(const std::string& path, uint64_t offset, uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  std::string before(bytes, '\0');
  file.read(before.data(), static_cast<std::streamsize>(bytes));
  files_[path].overwrites.push_back({offset, std::move(before)});
}

void FaultFileSystem::DirectorySynced(const std::string& directory) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (ignore_syncs_) return;
  entries_.erase(
      std::remove_if(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return DirectoryOf(entry.path) == directory; }),
      entries_.end());
}

IOStatus FaultFileSystem::NewWritableFile(const std::string& path,
                                          const rocksdb::FileOptions& options,
                                          std::unique_ptr<rocksdb::FSWritableFile>* file,
                                          IODebugContext* debug) {
  const IOStatus allowed = Before(Change::kEntry);
  if (!allowed.ok()) return allowed;
  const bool existed = std::filesystem::exists(path);
  const IOStatus opened = FileSystemWrapper::NewWritableFile(path, options, file, debug);
  if (!opened.ok()) return opened;
  *file = std::make_unique<FaultyWritableFile>(std::move(*file), path, *this);
  std::lock_guard<std::mutex> lock(mutex_);
  files_[path] = File();
  if (!existed) entries_.push_back({path, false, ""});
  return opened;
}

IOStatus FaultFileSystem::NewRandomRWFile(const std::string& path,
                                          const rocksdb::FileOptions& options,
                                          std::unique_ptr<rocksdb::FSRandomRWFile>* file,
                                          IODebugContext* debug) {
  const IOStatus opened = FileSystemWrapper::NewRandomRWFile(path, options, file, debug);
  if (opened.ok()) {
    *file = std::make_unique<FaultyRandomRWFile>(std::move(*file), path, *this);
    std::lock_guard<std::mutex> lock(mutex_);
    const uint64_t size = std::filesystem::file_size(path);
    if (files_.count(path) == 0) files_[path] = {size, size, false, {}};
  }
  return opened;
}

IOStatus FaultFileSystem::NewDirectory(const std::string& path, const IOOptions& options,
                                       std::unique_ptr<rocksdb::FSDirectory>* directory,
                                       IODebugContext* debug) {
  const IOStatus opened = FileSystemWrapper::NewDirectory(path, options, directory, debug);
  if (opened.ok()) {
    *directory = std::make_unique<FaultyDirectory>(std::move(*directory), path, *this);
  }
  return opened;
}

IOStatus FaultFileSystem::DeleteFile(const std::string& path, const IOOptions& options,
                                     IODebugContext* debug) {
  const IOStatus allowed = Before(Change::kRemoval);
  if (!allowed.ok()) return allowed;
  const IOStatus deleted = FileSystemWrapper::DeleteFile(path, options, debug);
  std::lock_guard<std::mutex> lock(mutex_);
  if (deleted.ok()) files_.erase(path);
  return deleted;
}

IOStatus FaultFileSystem::RenameFile(const std::string& from, const std::string& to,
                                     const IOOptions& options, IODebugContext* debug) {
  const IOStatus allowed = Before(Change::kEntry);
  if (!allowed.ok()) return allowed;
  Entry entry{to, std::filesystem::exists(to), ""};
  if (entry.existed) entry.content = Content(to);
  const IOStatus renamed = FileSystemWrapper::RenameFile(from, to, options, debug);
  if (!renamed.ok()) return renamed;
  std::lock_guard<std::mutex> lock(mutex_);
  if (files_.count(from) != 0) files_[to] = files_[from];
  files_.erase(from);
  // The entry that a rename takes away comes back under its new name only: enough for what RocksDB
  // and the high-water mark do, which write a temporary file and rename it.
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(),
                                [&](const Entry& each) { return each.path == from; }),
                 entries_.end());
  entries_.push_back(std::move(entry));
  return renamed;
}

void FaultFileSystem::UndoEntry(const Entry& entry) {
  if (!entry.existed) {
    std::filesystem::remove(entry.path);
  } else {
    std::ofstream(entry.path, std::ios::binary | std::ios::trunc) << entry.content;
  }
}

void FaultFileSystem::TearEnd(const std::string& path, const File& file, std::mt19937_64& random) {
  constexpr uint64_t kSector = 512;
  if (random() % 2 == 0) {
    const uint64_t unsynced = file.size - file.durable_size;
    std::filesystem::resize_file(path, file.durable_size + random() % (unsynced + 1));
    return;
  }
  std::fstream stream(path, std::ios::binary | std::ios::in | std::ios::out);
  for (uint64_t start = file.durable_size; start < file.size;) {
    const uint64_t end = std::min(file.size, (start / kSector + 1) * kSector);
    if (random() % 2 == 0) {
      const std::string zeros(end - start, '\0');
      stream.seekp(static_cast<std::streamoff>(start));
      stream.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
    }
    start = end;
  }
}

void FaultFileSystem::LosePower(uint64_t seed, bool keep_nothing) {
  std::lock_guard<std::mutex> lock(mutex_);
  std::mt19937_64 random(seed);
  const auto lost = [&] { return keep_nothing || random() % 2 == 0; };
  for (const auto& [path, file] : files_) {
    if (!std::filesystem::exists(path)) continue;
    if (file.size > file.durable_size) {
      if (lost()) {
        std::filesystem::resize_file(path, file.durable_size);
      } else {
        TearEnd(path, file, random);
      }
    }
    for (auto write = file.overwrites.rbegin(); write != file.overwrites.rend(); ++write) {
      if (!lost()) continue;
      std::fstream stream(path, std::ios::binary | std::ios::in | std::ios::out);
      stream.seekp(static_cast<std::streamoff>(write->offset));
      // Torn: only a part of it goes back to what it was.
      const uint64_t part =
          keep_nothing ? write->before.size() : random() % (write->before.size() + 1);
      stream.write(write->before.data(), static_cast<std::streamsize>(part));
    }
  }
  for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) {
    if (lost()) UndoEntry(*entry);
  }
}

std::unique_ptr<rocksdb::Env> EnvironmentOn(std::shared_ptr<FaultFileSystem> file_system) {
  return rocksdb::NewCompositeEnv(file_system);
}

}  // namespace anabranch
