#include "service/import_staging.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "service/error_info.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/sha256.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

absl::Status Failed(absl::string_view what) {
  const int error = errno;
  if (error == ENOSPC || error == EDQUOT) {
    return ErrorWithReason(absl::StatusCode::kResourceExhausted, "LIBRARY_FULL",
                           "the disk is full: free some space, then begin the import again; it "
                           "goes on where it was");
  }
  return absl::ErrnoToStatus(error, absl::StrCat("staging an import: ", what));
}

// Names that clients choose never become parts of paths.
std::string FileName(const std::string& tenant, const std::string& transfer_id) {
  Sha256 hash;
  hash.Add(tenant);
  hash.Add(absl::string_view("\0", 1));
  hash.Add(transfer_id);
  return absl::StrCat(absl::BytesToHexString(hash.Finish()), ".bundle");
}

}  // namespace

StagedImport::~StagedImport() {
  close(file_);
  if (discard_) unlink(path_.c_str());
  staging_->Close(path_);
}

absl::Status StagedImport::Append(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(file_, bytes.data(), bytes.size(), received_);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Failed("write");
    bytes.remove_prefix(static_cast<size_t>(count));
    received_ += count;
  }
  ReachCrashPoint(CrashPoint::kImportChunkStaged);
  return absl::OkStatus();
}

absl::StatusOr<std::string> StagedImport::Read(int64_t offset, size_t count) const {
  std::string bytes(count, '\0');
  size_t got = 0;
  while (got < count) {
    const ssize_t read =
        pread(file_, bytes.data() + got, count - got, offset + static_cast<int64_t>(got));
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) return Failed("read");
    if (read == 0) break;
    got += static_cast<size_t>(read);
  }
  bytes.resize(got);
  return bytes;
}

absl::Status StagedImport::Restart() {
  if (ftruncate(file_, 0) != 0) return Failed("truncate");
  received_ = 0;
  return absl::OkStatus();
}

ImportStaging::ImportStaging(std::string directory, uint64_t reserved_bytes)
    : directory_(std::move(directory)), reserved_bytes_(reserved_bytes) {
  RemoveOld();
}

absl::StatusOr<std::unique_ptr<StagedImport>> ImportStaging::Open(const std::string& tenant,
                                                                  const std::string& transfer_id,
                                                                  int64_t size_bytes) {
  RemoveOld();
  std::error_code error;
  fs::create_directories(directory_, error);
  const std::string path = directory_ + "/" + FileName(tenant, transfer_id);
  {
    absl::MutexLock lock(&mutex_);
    if (!open_.insert(path).second) {
      return ErrorWithReason(absl::StatusCode::kAborted, "TRANSFER_BUSY",
                             "another call runs on this transfer: wait for its end");
    }
  }
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  struct stat status = {};
  if (file < 0 || fstat(file, &status) != 0) {
    const absl::Status failed = Failed("open");
    if (file >= 0) close(file);
    Close(path);
    return failed;
  }
  std::unique_ptr<StagedImport> staged(new StagedImport(this, path, file, status.st_size));
  // The staged bytes, then the same in the library's log and in its tables.
  const fs::space_info space = fs::space(directory_, error);
  const uint64_t needed =
      static_cast<uint64_t>(size_bytes - std::min(size_bytes, staged->received())) +
      2 * static_cast<uint64_t>(size_bytes) + reserved_bytes_;
  if (error || space.available >= needed) return staged;
  if (staged->received() == 0) staged->Discard();
  return ErrorWithReason(
      absl::StatusCode::kResourceExhausted, "LIBRARY_FULL",
      absl::StrCat("importing ", size_bytes, " bytes needs ", needed, " free on the disk of ",
                   directory_, ", which has ", space.available));
}

void ImportStaging::Close(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  open_.erase(path);
}

void ImportStaging::RemoveOld() {
  absl::MutexLock lock(&mutex_);
  std::error_code error;
  const auto limit = fs::file_time_type::clock::now() - absl::ToChronoHours(kImportLifetime);
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    std::error_code gone;
    if (entry.path().extension() != ".bundle" || open_.contains(entry.path().string())) continue;
    if (entry.last_write_time(gone) < limit && !gone) fs::remove(entry.path(), gone);
  }
}

}  // namespace anabranch
