// States kept in host memory after they left their slot or came from the library: the tier between
// slots and the library. A session that goes on from one is neither read from disk nor decoded, and
// is copied from memory that the device reaches at full speed.
//
// What is here is a copy: it is used only while the library has the state in the same form, its
// checksums are verified whenever it is restored, and it may go at any time.
//
// Thread rule: every member may be called from any thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "runtime/device.h"
#include "runtime/host_buffers.h"
#include "service/state_loading.h"

namespace anabranch {

struct HostStatesStats {
  int64_t states = 0;
  uint64_t bytes = 0;
  uint64_t hits = 0, misses = 0;
};

class HostStates {
 public:
  // At most `most_bytes`; 0: nothing is kept. Payloads lie in the device's host memory, in blocks
  // of `block_bytes`; larger ones in ordinary memory.
  HostStates(std::shared_ptr<Device> device, uint64_t block_bytes, uint64_t most_bytes);

  bool enabled() const { return most_bytes_ > 0; }

  // Null: it is not here, or not in the form that the record tells of.
  std::shared_ptr<const LoadedState> Find(const StateRecord& record) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether it is here in that form; being asked for counts as a use, and as neither hit nor miss.
  bool Touch(const StateRecord& record) ABSL_LOCKS_EXCLUDED(mutex_);
  // A block to read a payload into that will be kept; what was used least recently makes room.
  absl::StatusOr<Buffer> Block(uint64_t payload_bytes) ABSL_LOCKS_EXCLUDED(mutex_);
  // Keeps what was read, in place of another form of it and of what was used least recently,
  // unless it alone is too much. Gives it back either way. A payload in a block is in one of
  // Block().
  std::shared_ptr<const LoadedState> Keep(LoadedState state) ABSL_LOCKS_EXCLUDED(mutex_);
  // The same for an image that lies in the engine's buffers, which are free for others afterwards.
  void KeepCaptured(LoadedState state) ABSL_LOCKS_EXCLUDED(mutex_);

  HostStatesStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Key = std::pair<std::string, std::string>;  // tenant and id
  struct Entry {
    Key key;
    std::shared_ptr<const LoadedState> state;
    uint64_t bytes = 0;
  };
  using Entries = std::list<Entry>;

  // Moves it to the front of entries_, or null.
  std::shared_ptr<const LoadedState> Use(const StateRecord& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes room for the state, and keeps it with its payload copied into a block if `copy`.
  std::shared_ptr<const LoadedState> Insert(LoadedState state, bool copy)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Drops what was used least recently until `bytes` more may be kept.
  void MakeRoom(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Erase(Entries::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Buffer> TakeBlock(uint64_t payload_bytes);
  // The payload in a block, or in ordinary memory if there is none.
  StateBytes Copied(const StateBytes& payload);

  const bool in_host_memory_;  // the device's: any memory is its own
  const uint64_t most_bytes_;
  const uint64_t block_bytes_;
  HostBuffers buffers_;

  mutable absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);  // the most recently used first
  absl::flat_hash_map<Key, Entries::iterator> by_key_ ABSL_GUARDED_BY(mutex_);
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0, hits_ ABSL_GUARDED_BY(mutex_) = 0,
                  misses_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace anabranch
