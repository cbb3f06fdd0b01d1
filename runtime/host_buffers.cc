#include "runtime/host_buffers.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace anabranch {

// Blocks differ in size by the codec that states are captured in, which rarely changes. A block
// serves for less than it has, but not for less than half while there is room to make another.
class HostBuffers::Kept {
 public:
  explicit Kept(uint64_t most_bytes) : most_bytes_(most_bytes) {}

  // A free block of less than twice the bytes. Empty: there is none.
  Buffer TakeFitting(size_t bytes) {
    absl::MutexLock lock(&mutex_);
    return Take(free_.lower_bound(bytes), 2 * bytes);
  }
  // Whether the caller may make a block, which counts from now on. Free blocks that are in the way
  // and too small are let go into `dropped`.
  bool MayMake(size_t bytes, std::vector<Buffer>& dropped) {
    absl::MutexLock lock(&mutex_);
    if (free_.lower_bound(bytes) == free_.end()) {
      while (!free_.empty() && bytes <= most_bytes_ && made_bytes_ > most_bytes_ - bytes) {
        made_bytes_ -= free_.begin()->first;
        dropped.push_back(std::move(free_.begin()->second));
        free_.erase(free_.begin());
      }
    }
    if (bytes > most_bytes_ || made_bytes_ > most_bytes_ - bytes) return false;
    made_bytes_ += bytes;
    return true;
  }
  void CouldNotMake(size_t bytes) {
    absl::MutexLock lock(&mutex_);
    made_bytes_ -= bytes;
    most_bytes_ = made_bytes_;
  }
  // A free block that is large enough, however large.
  Buffer TakeAny(size_t bytes) {
    absl::MutexLock lock(&mutex_);
    return Take(free_.lower_bound(bytes), SIZE_MAX);
  }
  void GiveBack(Buffer block) {
    absl::MutexLock lock(&mutex_);
    const size_t bytes = block.size();
    free_.emplace(bytes, std::move(block));
  }

 private:
  using Blocks = std::multimap<size_t, Buffer>;  // by size
  Buffer Take(Blocks::iterator found, size_t below) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (found == free_.end() || found->first >= below) return Buffer();
    Buffer block = std::move(found->second);
    free_.erase(found);
    return block;
  }

  absl::Mutex mutex_;
  uint64_t most_bytes_ ABSL_GUARDED_BY(mutex_);
  uint64_t made_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  Blocks free_ ABSL_GUARDED_BY(mutex_);
};

HostBuffers::HostBuffers(std::shared_ptr<Device> device, uint64_t most_bytes)
    : device_(std::move(device)), kept_(std::make_shared<Kept>(most_bytes)) {}

absl::StatusOr<Buffer> HostBuffers::Take(size_t bytes) {
  bytes = std::max<size_t>(bytes, 1);
  Buffer block = kept_->TakeFitting(bytes);
  std::vector<Buffer> dropped;
  if (block.data() == nullptr && kept_->MayMake(bytes, dropped)) {
    dropped.clear();
    auto made = device_->AllocateHost(bytes);
    if (made.ok()) {
      block = *std::move(made);
    } else {
      kept_->CouldNotMake(bytes);
    }
  }
  if (block.data() == nullptr) block = kept_->TakeAny(bytes);
  if (block.data() == nullptr) return Buffer::Allocate(bytes);
  void* const data = block.data();
  // The owner of what is handed out holds the block and gives it back.
  const auto give_back = [kept = kept_, block = std::move(block)](void*) mutable {
    kept->GiveBack(std::move(block));
  };
  return Buffer(std::shared_ptr<void>(data, give_back), data, bytes);
}

absl::StatusOr<Buffer> TakeBlock(HostBuffers* buffers, size_t bytes) {
  return buffers == nullptr ? Buffer::Allocate(bytes) : buffers->Take(bytes);
}

}  // namespace anabranch
