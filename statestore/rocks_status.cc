#include "statestore/rocks_status.h"

#include <rocksdb/status.h>

#include "absl/strings/str_cat.h"

namespace anabranch {

absl::Status FromRocks(const rocksdb::Status& status, absl::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", status.ToString());
  if (status.subcode() == rocksdb::Status::SubCode::kNoSpace) {
    return absl::ResourceExhaustedError(absl::StrCat("the disk is full: ", message));
  }
  switch (status.code()) {
    case rocksdb::Status::kCorruption:
      return absl::DataLossError(message);
    case rocksdb::Status::kNotFound:
      return absl::NotFoundError(message);
    case rocksdb::Status::kInvalidArgument:
    case rocksdb::Status::kNotSupported:
      return absl::FailedPreconditionError(message);
    default:
      return absl::UnavailableError(message);
  }
}

}  // namespace anabranch
