// The highest commit_seq that was acknowledged, in a small file of its own. RocksDB's recovery can
// open cleanly after dropping synced records of a damaged WAL; this mark is how that is noticed.
//
// The file holds two slots in different 4 KiB blocks, written in turn, so that a torn write damages
// at most the newer mark, which was not acknowledged yet. It never grows after it was created, so
// a sync writes one block and no metadata. docs/LIBRARY_FORMAT.md shows the bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace rocksdb {
class Env;
class RandomRWFile;
}  // namespace rocksdb

namespace anabranch {

// What the file says. The format version is here, because it must be known before RocksDB opens,
// and with it changes, the database.
struct HighWaterContents {
  uint32_t format_version = 0;
  uint64_t commit_seq = 0;
};

class HighWaterMark {
 public:
  // NOT_FOUND if there is no such file; DATA_LOSS if no slot is readable.
  static absl::StatusOr<HighWaterContents> Read(rocksdb::Env& env, const std::string& path);
  // Makes the file durable with its directory entry.
  static absl::Status Create(rocksdb::Env& env, const std::string& path,
                             const HighWaterContents& contents);
  static absl::StatusOr<std::unique_ptr<HighWaterMark>> Open(rocksdb::Env& env,
                                                             const std::string& path,
                                                             uint32_t format_version);
  ~HighWaterMark();

  // Writes the mark into the older slot; durable on OK if `sync`.
  absl::Status Advance(uint64_t commit_seq, bool sync);

 private:
  HighWaterMark(std::unique_ptr<rocksdb::RandomRWFile> file, uint32_t format_version,
                int next_slot);

  const std::unique_ptr<rocksdb::RandomRWFile> file_;
  const uint32_t format_version_;
  int next_slot_;
};

}  // namespace anabranch
