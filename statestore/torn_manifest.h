// RocksDB's list of its files, MANIFEST, after a power loss in the middle of an append. RocksDB
// acts on an entry only when it is durable, so an entry that is torn at the end never counted; but
// it refuses to open a database whose list ends in one. The list without it is what RocksDB had.
//
// Format: RocksDB's log files (wiki, "Write Ahead Log File Format"): blocks of 32 KiB of records,
// each a masked CRC32C, a length, a type (whole, first, middle, last) and bytes.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace rocksdb {
class Env;
}

namespace anabranch {

struct TornManifest {
  std::string path;
  std::string bytes;  // all of the file
  size_t whole = 0;   // so many of them are whole entries
};

// nullopt: the current list of the database in `directory` does not end in a torn entry. Then it is
// whole, or damaged in another way: something readable follows the damage.
absl::StatusOr<std::optional<TornManifest>> FindTornManifest(rocksdb::Env& env,
                                                             const std::string& directory);

}  // namespace anabranch
