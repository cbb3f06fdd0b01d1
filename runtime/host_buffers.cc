#include "runtime/host_buffers.h"

#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace anabranch {

class HostBuffers::Kept {
 public:
  explicit Kept(int most) : may_make_(most) {}

  // Empty: none is free.
  Buffer TakeFree() {
    absl::MutexLock lock(&mutex_);
    if (free_.empty()) return Buffer();
    Buffer block = std::move(free_.back());
    free_.pop_back();
    return block;
  }
  bool MayMake() {
    absl::MutexLock lock(&mutex_);
    return may_make_ > 0 && may_make_-- > 0;
  }
  void CouldNotMake() {
    absl::MutexLock lock(&mutex_);
    may_make_ = 0;
  }
  void GiveBack(Buffer block) {
    absl::MutexLock lock(&mutex_);
    free_.push_back(std::move(block));
  }

 private:
  absl::Mutex mutex_;
  int may_make_ ABSL_GUARDED_BY(mutex_);
  std::vector<Buffer> free_ ABSL_GUARDED_BY(mutex_);
};

HostBuffers::HostBuffers(std::shared_ptr<Device> device, size_t bytes, int most)
    : device_(std::move(device)), bytes_(bytes), kept_(std::make_shared<Kept>(most)) {}

absl::StatusOr<Buffer> HostBuffers::Take(size_t bytes) {
  return bytes <= bytes_ ? Take() : Buffer::Allocate(bytes);
}

absl::StatusOr<Buffer> HostBuffers::Take() {
  Buffer block = kept_->TakeFree();
  if (block.data() == nullptr && kept_->MayMake()) {
    auto made = device_->AllocateHost(bytes_);
    if (made.ok()) {
      block = *std::move(made);
    } else {
      kept_->CouldNotMake();
    }
  }
  if (block.data() == nullptr) return Buffer::Allocate(bytes_);
  void* const data = block.data();
  // The owner of what is handed out holds the block and gives it back.
  const auto give_back = [kept = kept_, block = std::move(block)](void*) mutable {
    kept->GiveBack(std::move(block));
  };
  return Buffer(std::shared_ptr<void>(data, give_back), data, bytes_);
}

}  // namespace anabranch
