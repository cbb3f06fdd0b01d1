// Memory and threads from LibTorch, behind types without its headers: weights, activations and
// state live in LibTorch tensors so that the same code can place them on a device later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/launch.h"

namespace anabranch {

// Owns one uninitialised, 64-byte aligned block. Copies share the block; the last one frees it.
class Buffer {
 public:
  Buffer() = default;
  // RESOURCE_EXHAUSTED if the memory cannot be had.
  static absl::StatusOr<Buffer> Allocate(size_t bytes);

  void* data() const { return data_; }
  float* floats() const { return static_cast<float*>(data_); }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<void> owner_;  // an at::Tensor
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Activations of one step. Take() hands out blocks that stay valid until Rewind() or Reset(); after
// the first steps everything comes from one block and nothing is allocated.
class Workspace {
 public:
  // Uninitialised, 64-byte aligned. RESOURCE_EXHAUSTED if the memory cannot be had.
  absl::StatusOr<float*> Take(int64_t floats);
  absl::StatusOr<int32_t*> TakeInts(int64_t count);
  // Frees what was taken since mark() returned `mark`.
  size_t mark() const { return used_; }
  void Rewind(size_t mark) { used_ = mark; }
  // Frees all; grows the block to the largest need seen so far.
  absl::Status Reset();

 private:
  Buffer block_;
  std::vector<Buffer> overflow_;      // what did not fit into block_ since the last Reset()
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
