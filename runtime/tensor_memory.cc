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
#include "runtime/huge_pages.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Distance of blocks handed out is a multiple of this; the first one is as the allocator aligns it.
constexpr int64_t kAlignment = 256;

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
  PreferHugePages(buffer.data_, bytes);
  buffer.size_ = bytes;
  return buffer;
}

absl::StatusOr<void*> Workspace::TakeBytes(int64_t count, int64_t size) {
  int64_t bytes = 0;
  if (count < 0 || __builtin_mul_overflow(count, size, &bytes) ||
      __builtin_add_overflow(bytes, kAlignment - 1, &bytes)) {
    return absl::ResourceExhaustedError(absl::StrCat("cannot allocate ", count, " elements"));
  }
  const size_t rounded = static_cast<size_t>(bytes) / kAlignment * kAlignment;
  const size_t begin = used_;
  used_ += rounded;
  high_water_ = std::max(high_water_, used_);
  if (used_ <= block_.size()) return static_cast<char*>(block_.data()) + begin;
  ANABRANCH_ASSIGN_OR_RETURN(Buffer extra, TakeExtra(rounded));
  overflow_.emplace_back(begin, extra);
  return extra.data();
}

// The smallest spare one that is large enough, or a new one; without memory for that, all spare
// ones go first.
absl::StatusOr<Buffer> Workspace::TakeExtra(size_t bytes) {
  auto best = spare_.end();
  for (auto each = spare_.begin(); each != spare_.end(); ++each) {
    if (each->size() >= bytes && (best == spare_.end() || each->size() < best->size())) best = each;
  }
  if (best != spare_.end()) {
    Buffer extra = std::move(*best);
    spare_.erase(best);
    return extra;
  }
  auto extra = device_->Allocate(bytes);
  if (extra.ok() || spare_.empty()) return extra;
  spare_.clear();
  return device_->Allocate(bytes);
}

absl::StatusOr<kernels::Acts> Workspace::Take(int64_t elements) {
  ANABRANCH_ASSIGN_OR_RETURN(void* memory,
                             TakeBytes(elements, kernels::ElementBytes(activations_)));
  return kernels::Acts(memory, activations_);
}

absl::StatusOr<float*> Workspace::TakeFloats(int64_t count) {
  ANABRANCH_ASSIGN_OR_RETURN(void* memory, TakeBytes(count, sizeof(float)));
  return static_cast<float*>(memory);
}

absl::StatusOr<int32_t*> Workspace::TakeInts(int64_t count) {
  ANABRANCH_ASSIGN_OR_RETURN(void* memory, TakeBytes(count, sizeof(int32_t)));
  return static_cast<int32_t*>(memory);
}

void Workspace::Rewind(size_t mark) {
  used_ = mark;
  for (; !overflow_.empty() && overflow_.back().first >= mark; overflow_.pop_back()) {
    spare_.push_back(std::move(overflow_.back().second));
  }
}

absl::StatusOr<bool> Workspace::Reset() {
  used_ = 0;
  overflow_.clear();
  spare_.clear();
  if (high_water_ <= block_.size()) return false;
  block_ = Buffer();
  ANABRANCH_ASSIGN_OR_RETURN(block_, device_->Allocate(high_water_));
  return true;
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
