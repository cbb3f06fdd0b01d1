// Lists of tensors that kernels on slots take by value, and the loop over longer lists. Only .cu
// files include it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/state_ops.h"

namespace anabranch::kernels::cuda {

inline constexpr int kTableSize = 64;

// By value, as a kernel's parameter of at most a few thousand bytes: nothing has to be copied to the
// device before a launch, and nothing has to live until it runs.
template <class Tensor>
struct Table {
  Tensor of[kTableSize];
};
// Slots and what they count.
struct SlotList {
  int32_t count;
  int32_t of[kMaxMergeInputs];
  double weight[kMaxMergeInputs];
};

// body(table, count, index of its first) for every kTableSize tensors.
template <class Tensor, class Body>
absl::Status ForTables(absl::Span<const Tensor> tensors, const Body& body) {
  for (size_t first = 0; first < tensors.size(); first += kTableSize) {
    Table<Tensor> table = {};
    const size_t count = std::min<size_t>(kTableSize, tensors.size() - first);
    std::copy_n(tensors.begin() + first, count, table.of);
    if (absl::Status s = body(table, static_cast<unsigned>(count), first); !s.ok()) return s;
  }
  return absl::OkStatus();
}

// The sum over a block, in the same order each time. All threads call it, and all get it.
template <int kThreads>
__device__ inline double BlockSum(double v) {
  __shared__ double warps[kThreads / kWarp];
  v = WarpSum(v);
  __syncthreads();  // an earlier call's results have been read
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = v;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < kThreads / kWarp; ++i) sum += warps[i];
  return sum;
}

}  // namespace anabranch::kernels::cuda
