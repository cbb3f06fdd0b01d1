// Where a model runs: memory, kernels and the order of work. The forward pass, the slots and the
// loading of weights are written against this and are the same on every device.
//
// Thread rule: allocation, copies and fills may be called from any thread and are done when they
// return. launch(), Queue(), Replay(), Mark() and Wait() belong to the one thread that runs the
// model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/kernel_set.h"
#include "runtime/memory_budget.h"

namespace anabranch {

class Buffer;
class StateCoder;

// One piece of a copy between two places that do not overlap.
struct CopyPart {
  const void* from = nullptr;
  void* to = nullptr;
  size_t bytes = 0;
};

enum class CopyDirection : uint8_t { kToDevice, kToHost, kWithin };

// A place among queued work. Any thread may ask.
class DeviceMark {
 public:
  virtual ~DeviceMark() = default;
  // Until all that was queued before it is done.
  virtual absl::Status Wait() = 0;
  virtual bool reached() = 0;
};

class Device {
 public:
  // "cpu", "cuda" or "cuda:N". INVALID_ARGUMENT for another name, UNAVAILABLE (with what is
  // missing) if the device is not there or the build has no CUDA.
  static absl::StatusOr<std::shared_ptr<Device>> Open(absl::string_view name, int num_threads);
  virtual ~Device() = default;

  // "cpu" or "cuda": part of the numerics profile, since states differ in the last bits.
  virtual const char* kind() const = 0;
  // Whether device memory is plain memory: then nothing needs to be copied.
  virtual bool in_host_memory() const = 0;
  // What activations of a model of this compute dtype are kept in.
  virtual kernels::DType activations(kernels::DType compute) const = 0;
  virtual const kernels::KernelSet& kernels() const = 0;
  virtual kernels::Launch launch() const = 0;
  // NOT_FOUND where the system does not say.
  virtual absl::StatusOr<MemoryBudget> AvailableMemory() const = 0;

  // Uninitialised, aligned to 64 bytes or more. RESOURCE_EXHAUSTED if the memory cannot be had.
  virtual absl::StatusOr<Buffer> Allocate(size_t bytes) = 0;
  // Host memory that the device copies from and to at full speed.
  virtual absl::StatusOr<Buffer> AllocateHost(size_t bytes) = 0;
  // Done when it returns. Not ordered with queued kernels: Wait() comes before a copy of what they
  // write, and nobody copies what a running step uses.
  virtual absl::Status Copy(CopyDirection direction, absl::Span<const CopyPart> parts) = 0;
  // The same for what is large and may take its time, such as states: between host and device, and
  // a Copy does not wait for it.
  virtual absl::Status CopyBeside(CopyDirection direction, absl::Span<const CopyPart> parts) = 0;
  // Codes states on the way, also in their exact form. Null: CopyBeside moves their tensors, and
  // the host makes what is stored of them.
  virtual StateCoder* coder() { return nullptr; }
  virtual absl::Status Fill(absl::Span<const absl::Span<uint8_t>> blocks, int byte) = 0;
  // A copy in its place among the queued kernels, done when Wait() returns. The host's side is of
  // AllocateHost and left alone until then.
  virtual absl::Status Queue(CopyDirection direction, const CopyPart& part) = 0;

  // Behind what was queued by now. Null where that is done at once.
  virtual absl::StatusOr<std::shared_ptr<DeviceMark>> Mark() { return nullptr; }

  // Runs `work`, which only queues kernels. From its second run with the same key on, a device that
  // can records it once and replays the record, so all addresses must be the same for the same key.
  virtual absl::Status Replay(int64_t key, absl::FunctionRef<absl::Status()> work) = 0;
  // Addresses have changed: recorded work is not valid any more.
  virtual void ForgetReplays() = 0;
  // Until queued kernels are done: INTERNAL if one of them failed.
  virtual absl::Status Wait() = 0;
  // To ask after an error. UNAVAILABLE: nothing will run here until the process starts anew.
  virtual absl::Status Health() { return absl::OkStatus(); }
};

}  // namespace anabranch
