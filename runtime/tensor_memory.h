// Memory and threads. On the CPU both come from LibTorch, behind types without its headers; a
// Buffer may hold memory of any device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/launch.h"
#include "runtime/device.h"

namespace anabranch {

// Owns one block, 64-byte aligned. Copies share the block; the last one frees it.
class Buffer {
 public:
  Buffer() = default;
  // Memory that `owner` keeps alive.
  Buffer(std::shared_ptr<void> owner, void* data, size_t size)
      : owner_(std::move(owner)), data_(data), size_(size) {}
  // Host memory, uninitialised. RESOURCE_EXHAUSTED if the memory cannot be had.
  static absl::StatusOr<Buffer> Allocate(size_t bytes);

  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<void> owner_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Memory of one step on a device. Blocks stay valid until Rewind() or Reset(); after the first
// steps everything comes from one block and nothing is allocated, and the same steps get the same
// addresses.
class Workspace {
 public:
  // `activations`: the dtype of what Take() gives.
  Workspace(std::shared_ptr<Device> device, kernels::DType activations)
      : device_(std::move(device)), activations_(activations) {}

  // Uninitialised, aligned. RESOURCE_EXHAUSTED if the memory cannot be had.
  absl::StatusOr<kernels::Acts> Take(int64_t elements);
  absl::StatusOr<float*> TakeFloats(int64_t count);
  absl::StatusOr<int32_t*> TakeInts(int64_t count);
  // Frees what was taken since mark() returned `mark`.
  size_t mark() const { return used_; }
  void Rewind(size_t mark);
  // Frees all; grows the block to the largest need seen so far. True if the block has moved.
  absl::StatusOr<bool> Reset();

 private:
  absl::StatusOr<void*> TakeBytes(int64_t count, int64_t size);

  const std::shared_ptr<Device> device_;
  const kernels::DType activations_;
  Buffer block_;
  absl::StatusOr<Buffer> TakeExtra(size_t bytes);

  // What did not fit into block_, with the bytes in use before it. Rewind makes it spare, so that
  // the layers of a first step share it: a device stops for whoever frees or takes memory.
  std::vector<std::pair<size_t, Buffer>> overflow_;
  std::vector<Buffer> spare_;
  size_t used_ = 0, high_water_ = 0;  // bytes
};

// Runs kernels on LibTorch's intra-op threads, on at most `num_threads` of them (0: all).
class TorchParallel : public kernels::Parallel {
 public:
  explicit TorchParallel(int num_threads) : num_threads_(num_threads) {}
  void For(int64_t n, int64_t grain,
           absl::FunctionRef<void(int64_t begin, int64_t end)> body) const override;

 private:
  int num_threads_;
};

}  // namespace anabranch
