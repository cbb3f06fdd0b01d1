#include "service/host_states.h"

#include <algorithm>
#include <cstring>

#include "statestore/base/host_threads.h"

namespace anabranch {
namespace {

constexpr uint64_t kCopyPiece = 4u << 20;

void CopyBytes(const char* from, uint64_t bytes, char* to) {
  const size_t pieces = (bytes + kCopyPiece - 1) / kCopyPiece;
  ForEachOnHost(bytes, pieces, [&](size_t i) {
    const uint64_t at = i * kCopyPiece;
    std::memcpy(to + at, from + at, std::min(kCopyPiece, bytes - at));
  });
}

// Beside the payload.
uint64_t OtherBytes(const LoadedState& state) {
  uint64_t bytes = sizeof(LoadedState) + state.record.header.size() +
                   state.tokens.size() * sizeof(state.tokens[0]) +
                   state.image.header.inner_sum.size() * sizeof(float);
  for (const std::string& block : state.image.kv_blocks) bytes += block.size();
  return bytes;
}

}  // namespace

HostStates::HostStates(std::shared_ptr<Device> device, uint64_t block_bytes, uint64_t most_bytes)
    : in_host_memory_(device->in_host_memory()),
      most_bytes_(most_bytes),
      block_bytes_(block_bytes),
      buffers_(std::move(device), most_bytes) {}

std::shared_ptr<const LoadedState> HostStates::Find(const StateRecord& record) {
  if (!enabled()) return nullptr;
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<const LoadedState> state = Use(record);
  ++(state ? hits_ : misses_);
  return state;
}

bool HostStates::Touch(const StateRecord& record) {
  absl::MutexLock lock(&mutex_);
  return Use(record) != nullptr;
}

std::shared_ptr<const LoadedState> HostStates::Use(const StateRecord& record) {
  const auto found = by_key_.find(Key(record.tenant, record.id));
  if (found == by_key_.end() || !SameForm(found->second->state->record, record)) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return entries_.front().state;
}

std::shared_ptr<const LoadedState> HostStates::Keep(LoadedState state) {
  const bool copy = !in_host_memory_ && !state.image.payload.in_block();
  return Insert(std::move(state), copy);
}

void HostStates::KeepCaptured(LoadedState state) { Insert(std::move(state), /*copy=*/true); }

// Room is made before the payload is copied, so that blocks of those that go are there for it. A
// block counts in full, whatever it holds.
std::shared_ptr<const LoadedState> HostStates::Insert(LoadedState state, bool copy) {
  const uint64_t payload_bytes = state.image.payload.size();
  const bool block = copy || state.image.payload.in_block();
  const uint64_t bytes =
      OtherBytes(state) + (block ? std::max(block_bytes_, payload_bytes) : payload_bytes);
  if (bytes > most_bytes_) return std::make_shared<const LoadedState>(std::move(state));
  {
    absl::MutexLock lock(&mutex_);
    const auto found = by_key_.find(Key(state.record.tenant, state.record.id));
    if (found != by_key_.end()) Erase(found->second);
    MakeRoom(bytes);
  }
  if (copy) state.image.payload = Copied(state.image.payload);
  auto kept = std::make_shared<const LoadedState>(std::move(state));
  Key key(kept->record.tenant, kept->record.id);
  absl::MutexLock lock(&mutex_);
  if (by_key_.contains(key)) return kept;  // another call was faster
  MakeRoom(bytes);
  entries_.push_front({key, kept, bytes});
  by_key_.emplace(std::move(key), entries_.begin());
  bytes_ += bytes;
  return kept;
}

void HostStates::MakeRoom(uint64_t bytes) {
  while (bytes_ + bytes > most_bytes_) Erase(std::prev(entries_.end()));
}

void HostStates::Erase(Entries::iterator entry) {
  bytes_ -= entry->bytes;
  by_key_.erase(entry->key);
  entries_.erase(entry);
}

absl::StatusOr<Buffer> HostStates::Block(uint64_t payload_bytes) {
  const uint64_t bytes = std::max(block_bytes_, payload_bytes);
  if (bytes <= most_bytes_) {
    absl::MutexLock lock(&mutex_);
    MakeRoom(bytes);
  }
  return TakeBlock(payload_bytes);
}

absl::StatusOr<Buffer> HostStates::TakeBlock(uint64_t payload_bytes) {
  return payload_bytes <= block_bytes_ ? buffers_.Take(block_bytes_)
                                       : Buffer::Allocate(payload_bytes);
}

StateBytes HostStates::Copied(const StateBytes& payload) {
  absl::StatusOr<Buffer> block = TakeBlock(payload.size());
  if (!block.ok()) return StateBytes(std::string(payload.view()));
  CopyBytes(payload.data(), payload.size(), static_cast<char*>(block->data()));
  return StateBytes(*std::move(block), payload.size());
}

HostStatesStats HostStates::stats() const {
  absl::MutexLock lock(&mutex_);
  return {static_cast<int64_t>(entries_.size()), bytes_, hits_, misses_};
}

}  // namespace anabranch
