#include "statestore/disk_use.h"

#include <filesystem>
#include <system_error>

#include "absl/time/clock.h"

namespace anabranch {
namespace {

constexpr absl::Duration kGoodFor = absl::Seconds(2);

}  // namespace

uint64_t BytesUnder(const std::string& directory) {
  uint64_t bytes = 0;
  std::error_code error;
  std::filesystem::recursive_directory_iterator file(directory, error), end;
  for (; !error && file != end; file.increment(error)) {
    std::error_code gone;  // files come and go meanwhile
    const uint64_t size = file->is_regular_file(gone) ? file->file_size(gone) : 0;
    if (!gone) bytes += size;
  }
  return bytes;
}

uint64_t DiskUse::Get(const std::string& directory) const {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  // A clock that was set back must not stop the count.
  if (now - looked_ > kGoodFor || now < looked_) {
    bytes_ = BytesUnder(directory);
    looked_ = now;
  }
  return bytes_;
}

}  // namespace anabranch
