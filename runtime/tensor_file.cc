#include "runtime/tensor_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr char kModelFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = 100'000'000;

// The same status with the file's name in front of its message.
absl::Status InFile(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

int64_t ModifiedNs(const struct stat& info) {
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

absl::string_view AsText(absl::Span<const uint8_t> bytes) {
  return absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

}  // namespace

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<uint8_t*>(bytes_.data()), bytes_.size());
  close(fd_);
}

absl::StatusOr<std::shared_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  // O_NONBLOCK: a FIFO must not block the open; regular files ignore it.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string message = absl::StrCat(path, ": ", strerror(errno));
    return errno == ENOENT || errno == ENOTDIR ? absl::NotFoundError(message)
                                               : absl::UnavailableError(message);
  }
  std::shared_ptr<MappedFile> file(new MappedFile(path, fd));
  struct stat info = {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::NotFoundError(absl::StrCat(path, ": not a regular file"));
  }
  file->modified_ns_ = ModifiedNs(info);
  const size_t size = static_cast<size_t>(info.st_size);
  if (size == 0) return file;
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) {
    return absl::UnavailableError(absl::StrCat(path, ": ", strerror(errno)));
  }
  file->bytes_ = absl::MakeConstSpan(static_cast<const uint8_t*>(data), size);
  return file;
}

absl::Status MappedFile::CheckUnchanged() const {
  struct stat info = {};
  if (fstat(fd_, &info) == 0 && ModifiedNs(info) == modified_ns_ &&
      static_cast<size_t>(info.st_size) == bytes_.size()) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat(path_, ": changed while it was read; load it again when it is complete"));
}

absl::StatusOr<TensorFile> TensorFile::Open(const std::string& path) {
  TensorFile result;
  ANABRANCH_RETURN_IF_ERROR(result.AddFile(path, nullptr, ""));
  return result;
}

absl::StatusOr<TensorFile> TensorFile::OpenModel(const std::string& dir) {
  const std::string single = absl::StrCat(dir, "/", kModelFile);
  auto opened = Open(single);
  if (opened.ok() || !absl::IsNotFound(opened.status())) return opened;

  const std::string index_path = absl::StrCat(dir, "/", kIndexFile);
  auto index_file = MappedFile::Open(index_path);
  if (absl::IsNotFound(index_file.status())) {
    return absl::NotFoundError(
        absl::StrCat(dir, ": neither ", kModelFile, " nor ", kIndexFile, " is there"));
  }
  ANABRANCH_RETURN_IF_ERROR(index_file.status());
  if ((*index_file)->bytes().size() > kMaxIndexBytes) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": too large for an index"));
  }
  auto index = ParseShardIndex(AsText((*index_file)->bytes()));
  if (!index.ok()) return InFile(index_path, index.status());

  TensorFile result;
  for (const std::string& name : index->files) {
    ANABRANCH_RETURN_IF_ERROR(result.AddFile(absl::StrCat(dir, "/", name), &*index, name));
  }
  for (const auto& [tensor, file] : index->file_of) {
    if (!result.tensors_.contains(tensor)) {
      return absl::DataLossError(
          absl::StrCat(index_path, ": tensor '", tensor, "' is not in ", file));
    }
  }
  return result;
}

TensorFile TensorFile::InMemory(TensorMap tensors, std::shared_ptr<const void> owner) {
  TensorFile result;
  result.tensors_ = std::move(tensors);
  result.memory_ = std::move(owner);
  return result;
}

std::shared_ptr<const void> TensorFile::owner() const {
  if (memory_ != nullptr) return memory_;
  return std::make_shared<std::vector<std::shared_ptr<MappedFile>>>(files_);
}

absl::Status TensorFile::AddFile(const std::string& path, const ShardIndex* index,
                                 const std::string& name) {
  ANABRANCH_ASSIGN_OR_RETURN(std::shared_ptr<MappedFile> file, MappedFile::Open(path));
  auto tensors = ParseSafetensors(file->bytes());
  if (!tensors.ok()) return InFile(path, tensors.status());
  for (auto& [tensor, view] : *tensors) {
    if (index != nullptr) {
      const auto listed = index->file_of.find(tensor);
      if (listed == index->file_of.end() || listed->second != name) {
        return absl::DataLossError(
            absl::StrCat(path, ": tensor '", tensor, "' is not listed for this file"));
      }
    }
    tensors_.emplace(tensor, std::move(view));
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

void TensorFile::AddName(const std::string& name, absl::string_view stored) {
  const TensorView* view = Find(stored);
  if (view != nullptr) tensors_.emplace(name, TensorView(*view));
}

const TensorView* TensorFile::Find(absl::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace anabranch
