// The CPU as a device whose copies can be told to wait or to fail, that can be lost, and that may
// code states.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "runtime/device.h"
#include "runtime/tensor_memory.h"
#include "tests/runtime/host_coder.h"

namespace anabranch::testing {

class HookedDevice : public Device {
 public:
  // Called before each copy of states: to and from the host, and within the device. Its status is
  // the copy's, which is not made unless that is OK.
  using Hook = std::function<absl::Status(CopyDirection)>;
  void set_hook(Hook hook) {
    absl::MutexLock lock(&mutex_);
    hook_ = std::move(hook);
  }

  // From now on this is its health.
  void set_health(absl::Status health) {
    absl::MutexLock lock(&mutex_);
    health_ = std::move(health);
  }
  absl::Status Health() override {
    absl::MutexLock lock(&mutex_);
    return health_;
  }

  // Before it is used.
  void set_codes(bool codes) { codes_ = codes; }
  StateCoder* coder() override { return codes_ ? &coder_ : nullptr; }
  int coded() const { return coder_.coded(); }

  const char* kind() const override { return inner_->kind(); }
  bool in_host_memory() const override { return inner_->in_host_memory(); }
  kernels::DType activations(kernels::DType compute) const override {
    return inner_->activations(compute);
  }
  const kernels::KernelSet& kernels() const override { return inner_->kernels(); }
  kernels::Launch launch() const override { return inner_->launch(); }
  absl::StatusOr<MemoryBudget> AvailableMemory() const override {
    return inner_->AvailableMemory();
  }
  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return inner_->Allocate(bytes); }
  absl::StatusOr<Buffer> AllocateHost(size_t bytes) override { return inner_->AllocateHost(bytes); }
  absl::Status Copy(CopyDirection direction, absl::Span<const CopyPart> parts) override {
    const absl::Status status =
        direction == CopyDirection::kWithin ? Ask(direction) : absl::Status();
    return status.ok() ? inner_->Copy(direction, parts) : status;
  }
  absl::Status CopyBeside(CopyDirection direction, absl::Span<const CopyPart> parts) override {
    const absl::Status status = Ask(direction);
    return status.ok() ? inner_->CopyBeside(direction, parts) : status;
  }
  absl::Status Queue(CopyDirection direction, const CopyPart& part) override {
    return inner_->Queue(direction, part);
  }
  absl::Status Fill(absl::Span<const absl::Span<uint8_t>> blocks, int byte) override {
    return inner_->Fill(blocks, byte);
  }
  absl::Status Replay(int64_t key, absl::FunctionRef<absl::Status()> work) override {
    return inner_->Replay(key, work);
  }
  void ForgetReplays() override { inner_->ForgetReplays(); }
  absl::Status Wait() override { return inner_->Wait(); }

 private:
  absl::Status Ask(CopyDirection direction) {
    Hook hook;
    {
      absl::MutexLock lock(&mutex_);
      hook = hook_;
    }
    return hook ? hook(direction) : absl::OkStatus();
  }

  const std::shared_ptr<Device> inner_ = *Device::Open("cpu", 1);
  bool codes_ = false;
  HostCoder coder_;
  absl::Mutex mutex_;
  Hook hook_ ABSL_GUARDED_BY(mutex_);
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace anabranch::testing
