// The files behind a model's tensors: memory-mapped, checked by runtime/safetensors.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/safetensors.h"

namespace anabranch {

// A read-only memory mapping of one file. It shows what is written into the file later, and reading
// it after the file was truncated raises SIGBUS: whoever replaces a file should rename the new one
// over it, which leaves the mapping alone.
class MappedFile {
 public:
  // NOT_FOUND if there is no such regular file; UNAVAILABLE if it cannot be mapped.
  static absl::StatusOr<std::shared_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::Span<const uint8_t> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }
  // DATA_LOSS if the file was written to or truncated since it was opened.
  absl::Status CheckUnchanged() const;

 private:
  MappedFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}
  std::string path_;
  int fd_;
  absl::Span<const uint8_t> bytes_;
  int64_t modified_ns_ = 0;
};

// All tensors of one safetensors file or of a model folder. Errors name the file.
class TensorFile {
 public:
  static absl::StatusOr<TensorFile> Open(const std::string& path);
  // `dir`/model.safetensors, or else the shards of `dir`/model.safetensors.index.json.
  static absl::StatusOr<TensorFile> OpenModel(const std::string& dir);
  // Tensors without a file, in memory that `owner` keeps.
  static TensorFile InMemory(TensorMap tensors, std::shared_ptr<const void> owner);

  const TensorMap& tensors() const { return tensors_; }
  const TensorView* Find(absl::string_view name) const;  // null if absent
  // Gives the tensor `stored` a second name.
  void AddName(const std::string& name, absl::string_view stored);
  // The mapped files, in the order of their names.
  const std::vector<std::shared_ptr<MappedFile>>& files() const { return files_; }
  // Keeps the bytes of all tensors.
  std::shared_ptr<const void> owner() const;

 private:
  absl::Status AddFile(const std::string& path, const ShardIndex* index, const std::string& name);

  std::vector<std::shared_ptr<MappedFile>> files_;
  std::shared_ptr<const void> memory_;  // of tensors without a file
  TensorMap tensors_;
};

}  // namespace anabranch
