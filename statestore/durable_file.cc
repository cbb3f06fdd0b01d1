#include "statestore/durable_file.h"

#include <rocksdb/env.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/rocks_status.h"

namespace anabranch {
namespace {

absl::Status SyncDirectoryOf(rocksdb::Env& env, const std::string& path) {
#ifdef ANABRANCH_BROKEN_NO_DIRECTORY_SYNC  // tests/crash/mutation_check.py shows that tests notice
  return absl::OkStatus();
#endif
  const std::string parent = path.substr(0, path.rfind('/'));
  std::unique_ptr<rocksdb::Directory> directory;
  ANABRANCH_RETURN_IF_ERROR(FromRocks(env.NewDirectory(parent, &directory), parent));
  return FromRocks(directory->Fsync(), parent);
}

}  // namespace

absl::Status ReplaceFile(rocksdb::Env& env, const std::string& path, absl::string_view bytes) {
  const std::string temporary = absl::StrCat(path, ".new");
  std::unique_ptr<rocksdb::WritableFile> file;
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(env.NewWritableFile(temporary, &file, rocksdb::EnvOptions()), temporary));
  ANABRANCH_RETURN_IF_ERROR(
      FromRocks(file->Append(rocksdb::Slice(bytes.data(), bytes.size())), temporary));
  ANABRANCH_RETURN_IF_ERROR(FromRocks(file->Fsync(), temporary));
  ANABRANCH_RETURN_IF_ERROR(FromRocks(file->Close(), temporary));
  ReachCrashPoint(CrashPoint::kNewFileWritten);
  ANABRANCH_RETURN_IF_ERROR(FromRocks(env.RenameFile(temporary, path), path));
  ReachCrashPoint(CrashPoint::kNewFileRenamed);
  ANABRANCH_RETURN_IF_ERROR(SyncDirectoryOf(env, path));
  ReachCrashPoint(CrashPoint::kNewFileDurable);
  return absl::OkStatus();
}

}  // namespace anabranch
