#include "clients/cpp/bundle_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

constexpr int kExportAttempts = 3;
constexpr size_t kHashBytes = 32;

absl::Status Cannot(absl::string_view verb, const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat("cannot ", verb, " ", path));
}

// What an unfinished export has left: the bytes, and beside them the bundle that they are of.
struct Unfinished {
  std::string path, id_path;
  explicit Unfinished(const std::string& target)
      : path(target + ".part"), id_path(target + ".part.id") {}

  // Where to go on; the id is empty if there is nothing to go on with.
  void Load(v1::ExportRequest& request) const {
    std::ifstream file(id_path);
    std::string id;
    std::error_code error;
    const auto size = static_cast<int64_t>(fs::file_size(path, error));
    if (!(file >> id) || error || size == 0) return;
    request.set_bundle_id(id);
    request.set_offset(size);
  }
  void Remove() const {
    std::error_code ignored;
    fs::remove(path, ignored);
    fs::remove(id_path, ignored);
  }
};

absl::Status SyncFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = file >= 0 && fsync(file) == 0;
  if (file >= 0) close(file);
  return synced ? absl::OkStatus() : Cannot("write", path);
}

absl::StatusOr<v1::BundleInfo> ExportOnce(Client& client, v1::ExportRequest request,
                                          const Unfinished& unfinished,
                                          const TransferCallback& on_progress,
                                          Cancellation* cancel) {
  std::ofstream out(unfinished.path, request.offset() > 0 ? std::ios::binary | std::ios::app
                                                          : std::ios::binary | std::ios::trunc);
  if (!out) return Cannot("write", unfinished.path);
  bool named = request.offset() > 0;
  return client.Export(
      request,
      [&](const v1::BundleInfo& bundle, int64_t offset, const std::string& data) -> absl::Status {
        if (!named) {
          named = true;
          std::ofstream id(unfinished.id_path);
          if (!(id << bundle.bundle_id() << "\n")) return Cannot("write", unfinished.id_path);
        }
        out.write(data.data(), static_cast<std::streamsize>(data.size()));
        if (!out.flush()) return Cannot("write", unfinished.path);
        if (on_progress) {
          on_progress(offset + static_cast<int64_t>(data.size()), bundle.size_bytes());
        }
        return absl::OkStatus();
      },
      cancel);
}

}  // namespace

absl::StatusOr<v1::BundleInfo> ExportToFile(Client& client, v1::ExportRequest request,
                                            const std::string& path,
                                            const TransferCallback& on_progress,
                                            Cancellation* cancel) {
  const Unfinished unfinished(path);
  unfinished.Load(request);
  for (int attempt = 1;; ++attempt) {
    const auto bundle = ExportOnce(client, request, unfinished, on_progress, cancel);
    // What is here already is of other contents, of another bundle, or longer than this one.
    const bool stale = absl::IsAborted(bundle.status()) ||
                       (request.offset() > 0 && absl::IsInvalidArgument(bundle.status()));
    if (bundle.ok()) {
      const absl::Status synced = SyncFile(unfinished.path);
      if (!synced.ok()) return synced;
      if (std::rename(unfinished.path.c_str(), path.c_str()) != 0) return Cannot("write", path);
      unfinished.Remove();
      return bundle;
    }
    if (!stale || attempt == kExportAttempts) return bundle.status();
    unfinished.Remove();
    request.clear_offset();
    request.clear_bundle_id();
  }
}

absl::StatusOr<v1::ImportResult> ImportFromFile(Client& client, v1::ImportStart start,
                                                const std::string& path,
                                                const TransferCallback& on_progress,
                                                Cancellation* cancel) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Cannot("open", path);
  file.seekg(0, std::ios::end);
  const auto size = static_cast<int64_t>(file.tellg());
  if (size < static_cast<int64_t>(kHashBytes)) return Cannot("read a bundle from", path);
  std::string hash(kHashBytes, '\0');
  file.seekg(size - static_cast<int64_t>(kHashBytes));
  if (!file.read(hash.data(), kHashBytes)) return Cannot("read", path);
  if (start.transfer_id().empty()) start.set_transfer_id(absl::BytesToHexString(hash));
  start.set_size_bytes(size);
  const ChunkSource source = [&](int64_t offset, size_t count) -> absl::StatusOr<std::string> {
    std::string bytes(
        std::min<int64_t>(static_cast<int64_t>(count), std::max<int64_t>(size - offset, 0)), '\0');
    file.clear();
    file.seekg(offset);
    if (!bytes.empty() && !file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
      return Cannot("read", path);
    }
    return bytes;
  };
  return client.Import(
      start, source,
      [&](const v1::ImportProgress& progress) {
        if (on_progress) on_progress(progress.received_bytes(), size);
      },
      cancel);
}

}  // namespace anabranch
