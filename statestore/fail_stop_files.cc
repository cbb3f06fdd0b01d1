#include "statestore/fail_stop_files.h"

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

// What RocksDB is told of a failure.
enum class Tell { kFailure, kSuccess };

Tell TellOf(absl::string_view path) {
  const absl::string_view name = path.substr(path.rfind('/') + 1);
  const bool needed_to_go_on = absl::EndsWith(name, ".log") || absl::StartsWith(name, "MANIFEST-");
  return needed_to_go_on ? Tell::kSuccess : Tell::kFailure;
}

IOStatus FailureOf(const FailStop& stop) {
  const absl::Status status = stop.status();
  const std::string message(status.message());
  if (absl::IsResourceExhausted(status)) return IOStatus::NoSpace(message);
  return IOStatus::IOError(message);
}

template <typename Change>
IOStatus Try(FailStop& stop, Tell tell, Change change) {
  if (!stop.stopped()) {
    IOStatus changed = change();
    if (changed.ok()) return changed;
    stop.Stop(FromRocks(changed, "the database's disk"));
  }
  return tell == Tell::kSuccess ? IOStatus::OK() : FailureOf(stop);
}

class FailStopFile : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  FailStopFile(std::unique_ptr<rocksdb::FSWritableFile> file, Tell tell,
               std::shared_ptr<FailStop> stop)
      : FSWritableFileOwnerWrapper(std::move(file)), tell_(tell), stop_(std::move(stop)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return FSWritableFileOwnerWrapper::Append(data, options, debug); });
  }
  IOStatus Append(const Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& verification,
                  IODebugContext* debug) override {
    return Do(
        [&] { return FSWritableFileOwnerWrapper::Append(data, options, verification, debug); });
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return FSWritableFileOwnerWrapper::Truncate(size, options, debug); });
  }
  IOStatus Flush(const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return FSWritableFileOwnerWrapper::Flush(options, debug); });
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return FSWritableFileOwnerWrapper::Sync(options, debug); });
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Do([&] { return FSWritableFileOwnerWrapper::Fsync(options, debug); });
  }
  IOStatus RangeSync(uint64_t offset, uint64_t bytes, const IOOptions& options,
                     IODebugContext* debug) override {
    return Do([&] { return FSWritableFileOwnerWrapper::RangeSync(offset, bytes, options, debug); });
  }
  // Also when nothing is written any more: the descriptor goes.
  IOStatus Close(const IOOptions& options, IODebugContext* debug) override {
    IOStatus closed = FSWritableFileOwnerWrapper::Close(options, debug);
    return Do([&] { return std::move(closed); });
  }
  void PrepareWrite(size_t offset, size_t bytes, const IOOptions& options,
                    IODebugContext* debug) override {
    if (!stop_->stopped()) FSWritableFileOwnerWrapper::PrepareWrite(offset, bytes, options, debug);
  }

 private:
  template <typename Change>
  IOStatus Do(Change change) {
    return Try(*stop_, tell_, change);
  }

  const Tell tell_;
  const std::shared_ptr<FailStop> stop_;
};

// In place of one that could not be created, and of which that is not told.
class NoFile : public rocksdb::FSWritableFile {
 public:
  IOStatus Append(const Slice&, const IOOptions&, IODebugContext*) override {
    return IOStatus::OK();
  }
  IOStatus Append(const Slice&, const IOOptions&, const rocksdb::DataVerificationInfo&,
                  IODebugContext*) override {
    return IOStatus::OK();
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  void PrepareWrite(size_t, size_t, const IOOptions&, IODebugContext*) override {}
};

class FailStopDirectory : public rocksdb::FSDirectoryWrapper {
 public:
  FailStopDirectory(std::unique_ptr<rocksdb::FSDirectory> directory, std::shared_ptr<FailStop> stop)
      : FSDirectoryWrapper(std::move(directory)), stop_(std::move(stop)) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Try(*stop_, Tell::kSuccess, [&] { return FSDirectoryWrapper::Fsync(options, debug); });
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions& reason) override {
    return Try(*stop_, Tell::kSuccess,
               [&] { return FSDirectoryWrapper::FsyncWithDirOptions(options, debug, reason); });
  }

 private:
  const std::shared_ptr<FailStop> stop_;
};

class FailStopFileSystem : public rocksdb::FileSystemWrapper {
 public:
  FailStopFileSystem(const std::shared_ptr<rocksdb::FileSystem>& base,
                     std::shared_ptr<FailStop> stop)
      : FileSystemWrapper(base), stop_(std::move(stop)) {}
  const char* Name() const override { return "FailStopFileSystem"; }

  IOStatus NewWritableFile(const std::string& path, const FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           IODebugContext* debug) override {
    return NewFile(path, file, [&](std::unique_ptr<rocksdb::FSWritableFile>* made) {
      return FileSystemWrapper::NewWritableFile(path, options, made, debug);
    });
  }
  IOStatus ReopenWritableFile(const std::string& path, const FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* file,
                              IODebugContext* debug) override {
    return NewFile(path, file, [&](std::unique_ptr<rocksdb::FSWritableFile>* made) {
      return FileSystemWrapper::ReopenWritableFile(path, options, made, debug);
    });
  }
  IOStatus NewDirectory(const std::string& path, const IOOptions& options,
                        std::unique_ptr<rocksdb::FSDirectory>* directory,
                        IODebugContext* debug) override {
    IOStatus opened = FileSystemWrapper::NewDirectory(path, options, directory, debug);
    if (opened.ok()) {
      *directory = std::make_unique<FailStopDirectory>(std::move(*directory), stop_);
    }
    return opened;
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* debug) override {
    return Try(*stop_, Tell::kFailure,
               [&] { return FileSystemWrapper::RenameFile(from, to, options, debug); });
  }
  // A file that stays takes space and does no harm: this is no reason to stop.
  IOStatus DeleteFile(const std::string& path, const IOOptions& options,
                      IODebugContext* debug) override {
    if (stop_->stopped()) return FailureOf(*stop_);
    return FileSystemWrapper::DeleteFile(path, options, debug);
  }

 private:
  template <typename Make>
  IOStatus NewFile(const std::string& path, std::unique_ptr<rocksdb::FSWritableFile>* file,
                   Make make) {
    const Tell tell = TellOf(path);
    std::unique_ptr<rocksdb::FSWritableFile> made;
    IOStatus status = Try(*stop_, tell, [&] { return make(&made); });
    if (!status.ok()) return status;
    if (made == nullptr) {
      *file = std::make_unique<NoFile>();
    } else {
      *file = std::make_unique<FailStopFile>(std::move(made), tell, stop_);
    }
    return status;
  }

  const std::shared_ptr<FailStop> stop_;
};

}  // namespace

absl::Status FailStop::status() const {
  if (!stopped_) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  return failure_;
}

void FailStop::Stop(absl::Status failure) {
  absl::MutexLock lock(&mutex_);
  if (stopped_) return;
  failure_ = std::move(failure);
  stopped_ = true;
}

std::unique_ptr<rocksdb::Env> FailStopEnvironment(rocksdb::Env& base,
                                                  std::shared_ptr<FailStop> stop) {
  return rocksdb::NewCompositeEnv(
      std::make_shared<FailStopFileSystem>(base.GetFileSystem(), std::move(stop)));
}

}  // namespace anabranch
