// RocksDB's status in our terms.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace rocksdb {
class Status;
}

namespace anabranch {

// DATA_LOSS for corruption, RESOURCE_EXHAUSTED for a full disk, UNAVAILABLE for other I/O errors.
// `what` says what was being done, for the message.
absl::Status FromRocks(const rocksdb::Status& status, absl::string_view what);

}  // namespace anabranch
