#include "runtime/tensor_memory.h"

#define AT_PER_OPERATOR_HEADERS
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr size_t kAlignment = 64;  // of every block handed out; LibTorch's CPU allocator gives it

}  // namespace

absl::StatusOr<Buffer> Buffer::Allocate(size_t bytes) {
  if (bytes > static_cast<size_t>(std::numeric_limits<int64_t>::max())) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes"));
  }
  Buffer buffer;
  try {
    auto tensor = std::make_shared<at::Tensor>(
        at::empty({static_cast<int64_t>(std::max<size_t>(bytes, 1))}, at::kByte));
    buffer.data_ = tensor->data_ptr();
    buffer.owner_ = std::move(tensor);
  } catch (const std::exception&) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", bytes, " bytes"));
  }
  buffer.size_ = bytes;
  return buffer;
}

absl::StatusOr<float*> Workspace::Take(int64_t floats) {
  if (floats < 0 || floats > std::numeric_limits<int64_t>::max() / 8) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", floats, " floats"));
  }
  const size_t bytes =
      (static_cast<size_t>(floats) * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
  const size_t begin = used_;
  if (begin + bytes <= block_.size()) {
    used_ += bytes;
    high_water_ = std::max(high_water_, used_);
    return reinterpret_cast<float*>(static_cast<char*>(block_.data()) + begin);
  }
  ANABRANCH_ASSIGN_OR_RETURN(Buffer extra, Buffer::Allocate(bytes));
  used_ += bytes;
  high_water_ = std::max(high_water_, used_);
  overflow_.push_back(extra);
  return extra.floats();
}

absl::StatusOr<int32_t*> Workspace::TakeInts(int64_t count) {
  static_assert(sizeof(int32_t) == sizeof(float));
  ANABRANCH_ASSIGN_OR_RETURN(float* memory, Take(count));
  return reinterpret_cast<int32_t*>(memory);
}

absl::Status Workspace::Reset() {
  used_ = 0;
  overflow_.clear();
  if (high_water_ > block_.size()) {
    block_ = Buffer();
    ANABRANCH_ASSIGN_OR_RETURN(block_, Buffer::Allocate(high_water_));
  }
  return absl::OkStatus();
}

void TorchParallel::For(int64_t n, int64_t grain,
                        absl::FunctionRef<void(int64_t, int64_t)> body) const {
  grain = std::max<int64_t>(grain, 1);
  // at::parallel_for makes at most ceil(n / grain) ranges, so a coarser grain bounds the threads
  // without touching the process-wide setting.
  if (num_threads_ > 0) grain = std::max(grain, (n + num_threads_ - 1) / num_threads_);
  at::parallel_for(0, n, grain, [&body](int64_t begin, int64_t end) { body(begin, end); });
}

}  // namespace anabranch
