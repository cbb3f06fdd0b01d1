// Small files that are there whole or not at all, whatever happens while they are made.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace rocksdb {
class Env;
}

namespace anabranch {

// Writes `bytes` beside `path`, under `path`.new, syncs and renames it, and syncs the directory: a
// crash leaves the old file, the new one, or none.
absl::Status ReplaceFile(rocksdb::Env& env, const std::string& path, absl::string_view bytes);

}  // namespace anabranch
