// The newest small commit groups, whole, in a file of their own that is synced in place of
// RocksDB's log: one sync of a few blocks that lie where they always lay makes a group durable,
// where the log and the mark are two, and the log's grows its file. Whoever opens the library does
// again what the journal holds (open_library.cc), so RocksDB's log may follow later. DURABILITY.md
// has the protocol and why it loses nothing.
//
// The file is a chain of records from its start, each at the start of a 4 KiB block and naming the
// group before it; when all of them are durable elsewhere, the chain begins anew at the start. The
// file never grows, so a sync writes its blocks and no metadata. Records are keyed with the
// library's random bytes: nothing that a client sends can look like one.
// docs/LIBRARY_FORMAT.md shows the bytes.
//
// Thread rule: one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "statestore/overlay.h"

namespace rocksdb {
class Env;
class RandomRWFile;
}  // namespace rocksdb

namespace anabranch {

// A group's changes as bytes, and back. DecodeChanges adds them to `changes`; DATA_LOSS if they are
// not what EncodeChanges makes.
std::string EncodeChanges(const Overlay& changes);
absl::Status DecodeChanges(absl::string_view bytes, Overlay& changes);

struct JournalRecord {
  uint64_t commit_seq = 0, previous_seq = 0;  // the group, and the one that it was applied to
  std::string changes;                        // EncodeChanges
};

struct JournalContents {
  // The records that follow each other from the file's start; none is as old as was asked.
  std::vector<JournalRecord> chain;
  // Of any readable record in the file. More than the chain's last: a record between is damaged.
  uint64_t newest_seq = 0;
};

class CommitJournal {
 public:
  // Of the groups after `after_seq`. A file that does not exist holds none.
  static absl::StatusOr<JournalContents> Read(rocksdb::Env& env, const std::string& path,
                                              absl::string_view key, uint64_t after_seq);
  // Empty, in place of what is there, durable with its directory entry. The file has
  // FileBytes(bytes), which is `bytes` in whole blocks.
  static uint64_t FileBytes(uint64_t bytes);
  static absl::Status Create(rocksdb::Env& env, const std::string& path, uint64_t bytes);
  // One without records that matter: the chain begins at the start.
  static absl::StatusOr<std::unique_ptr<CommitJournal>> Open(rocksdb::Env& env,
                                                             const std::string& path,
                                                             absl::string_view key);
  ~CommitJournal();

  // Whether a group is small enough for the journal, and whether there is room for it now.
  // `changes_bytes` as encoded.
  bool Fits(uint64_t changes_bytes) const;
  bool HasRoomFor(uint64_t changes_bytes) const;
  // Behind the records that were kept; durable on OK.
  absl::Status Write(uint64_t commit_seq, uint64_t previous_seq, absl::string_view changes);
  // What was written last belongs to the chain; or its group failed, and it must never be done
  // again. Durable on OK.
  void Keep();
  absl::Status Void();
  // All that was kept is durable elsewhere.
  void Restart();

  // Of the last record that was kept since the chain began; 0: there is none.
  uint64_t newest_seq() const { return newest_seq_; }

 private:
  CommitJournal(std::unique_ptr<rocksdb::RandomRWFile> file, uint64_t capacity,
                absl::string_view key);
  absl::Status WriteSynced(absl::string_view blocks);

  const std::unique_ptr<rocksdb::RandomRWFile> file_;
  const uint64_t capacity_;
  const std::string key_;
  uint64_t end_ = 0;  // of the chain
  uint64_t newest_seq_ = 0;
  uint64_t written_seq_ = 0, written_end_ = 0;  // not kept yet
};

}  // namespace anabranch
