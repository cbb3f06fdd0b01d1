// How a library is opened, and what holds while it is.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "statestore/retention.h"

namespace rocksdb {
class Env;
}

namespace anabranch {

// Read by one thread, a large payload takes as long as it takes to touch fresh memory, several
// times what copying and checking it takes: such parts are read into blocks that malloc keeps and
// gives out again, and by all threads at once. Parts of 0.5 to 4 MiB take the same time within a
// tenth, from 8 MiB on the memory is fresh each time.
inline constexpr uint64_t kPayloadPartBytes = 1u << 20;

struct StoreOptions {
  std::string directory;
  bool create_if_missing = true;
  uint64_t block_cache_bytes = 256u << 20;
  // What a family of large values may have in memory before it is written to tables; the others a
  // quarter of it each.
  uint64_t write_buffer_bytes = 64u << 20;
  // How long the writer waits for more mutations to share a sync. Zero: never waits.
  absl::Duration group_commit_window = absl::ZeroDuration();
  // Sync the commit high-water mark with every commit group (DURABILITY.md). Off leaves a window.
  bool sync_high_water = true;
  // The size of the journal (commit_journal.h), through which small commits become durable with one
  // sync. 0: none, and every commit is two syncs. Without sync_high_water there is none either.
  uint64_t journal_bytes = 1u << 20;
  // Payloads larger than this are stored in parts of as many bytes (payloads.h); at least 1.
  uint64_t payload_part_bytes = kPayloadPartBytes;
  // Commit answers RESOURCE_EXHAUSTED while more than this waits to be written.
  uint64_t max_queued_bytes = 512u << 20;
  // Commits that add states or tokens are refused (RESOURCE_EXHAUSTED) when the disk has less left:
  // what remains is for deleting, and for the library's own work.
  uint64_t reserved_disk_bytes = 64u << 20;
  Quotas quotas;
  // After how long a state expires that is stored without a time.
  absl::Duration default_expiry = absl::InfiniteDuration();
  // Open a library although acknowledged commits are missing or cannot be shown to be there. What
  // was recovered becomes the new truth. For an operator who has no better copy.
  bool accept_data_loss = false;
  // For tests: the file system to use. Null: the default one.
  rocksdb::Env* env = nullptr;
};

}  // namespace anabranch
