// Whether files are as they were written. Reads of values verify the bytes of the value alone;
// keys, lengths and checksums around it, and whatever no read comes by, are seen here.
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_checksum.h>
#include <rocksdb/metadata.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "statestore/base/status_macros.h"
#include "statestore/database.h"
#include "statestore/rocks_options.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

constexpr size_t kReadBytes = 1 << 20;

// By the function that the library's files are written with (rocks_options.cc).
std::unique_ptr<rocksdb::FileChecksumGenerator> NewChecksum(const std::string& name) {
  rocksdb::FileChecksumGenContext context;
  context.file_name = name;
  return rocksdb::GetFileChecksumGenCrc32cFactory()->CreateFileChecksumGenerator(context);
}

}  // namespace

std::vector<Database::StoredFile> Database::Files() const {
  const std::shared_ptr<const OpenDatabase> open = current();
  const std::string function = NewChecksum("")->Name();
  std::vector<StoredFile> files;
  const auto add = [&](const std::string& name, const std::string& by, const std::string& checksum,
                       uint64_t bytes) {
    if (by != function) return;
    files.push_back({std::string(absl::StripPrefix(name, "/")), checksum, bytes});
  };
  for (int i = 0; i < kFamilies; ++i) {
    rocksdb::ColumnFamilyMetaData meta;
    open->db().GetColumnFamilyMetaData(open->handle(static_cast<Family>(i)), &meta);
    for (const rocksdb::LevelMetaData& level : meta.levels) {
      for (const rocksdb::SstFileMetaData& file : level.files) {
        add(file.name, file.file_checksum_func_name, file.file_checksum, file.size);
      }
    }
    for (const rocksdb::BlobMetaData& file : meta.blob_files) {
      add(file.blob_file_name, file.checksum_method, file.checksum_value, file.blob_file_size);
    }
  }
  std::sort(files.begin(), files.end(),
            [](const StoredFile& a, const StoredFile& b) { return a.name < b.name; });
  return files;
}

absl::Status Database::CheckFile(const StoredFile& file) const {
  rocksdb::Env& env = EnvOf(options_);
  const std::string path = absl::StrCat(directory_, "/", file.name);
  std::unique_ptr<rocksdb::SequentialFile> source;
  const rocksdb::Status opened = env.NewSequentialFile(path, &source, rocksdb::EnvOptions());
  if (opened.IsNotFound() || opened.IsPathNotFound()) return absl::NotFoundError(path);
  ANABRANCH_RETURN_IF_ERROR(FromRocks(opened, path));
  const std::unique_ptr<rocksdb::FileChecksumGenerator> checksum = NewChecksum(file.name);
  std::string scratch(kReadBytes, '\0');
  for (;;) {
    rocksdb::Slice read;
    ANABRANCH_RETURN_IF_ERROR(FromRocks(source->Read(kReadBytes, &read, scratch.data()), path));
    if (read.empty()) break;
    checksum->Update(read.data(), read.size());
  }
  checksum->Finalize();
  if (checksum->GetChecksum() == file.checksum) return absl::OkStatus();
  return absl::DataLossError(
      "it is not as it was written. What of its content cannot be read right is named as well; the "
      "rest can be read, and moves to a new file when it is stored again");
}

}  // namespace anabranch
