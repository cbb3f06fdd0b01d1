#include "runtime/cuda_copies.h"

#include <algorithm>
#include <vector>

#include "kernels/cuda/context.h"
#include "kernels/cuda/state_ops.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using kernels::CudaStatus;
using kernels::cuda::BlockCopy;

// Whether a part's host side is ordinary memory, and there is enough in all to be worth threads.
bool WorthStaging(absl::Span<const CopyPart> parts) {
  constexpr size_t kLeast = size_t{1} << 20;
  size_t bytes = 0;
  for (const CopyPart& part : parts) bytes += part.bytes;
  if (bytes < kLeast) return false;
  // The device's side counts as known to the driver, so that both are asked the same.
  const auto known = [](const void* pointer) {
    cudaPointerAttributes attributes;
    return cudaPointerGetAttributes(&attributes, pointer) == cudaSuccess &&
           attributes.type != cudaMemoryTypeUnregistered;
  };
  return std::any_of(parts.begin(), parts.end(), [&known](const CopyPart& part) {
    return !known(part.from) || !known(part.to);
  });
}

// In one call: a slot has hundreds of parts, most of them small.
absl::Status CopyAll(absl::Span<const CopyPart> parts, cudaStream_t stream) {
  std::vector<void*> to;
  std::vector<const void*> from;
  std::vector<size_t> bytes;
  for (const CopyPart& part : parts) {
    if (part.bytes == 0) continue;
    to.push_back(part.to);
    from.push_back(part.from);
    bytes.push_back(part.bytes);
  }
  if (bytes.empty()) return absl::OkStatus();
  cudaMemcpyAttributes attributes = {};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  size_t first = 0;
  return CudaStatus(cudaMemcpyBatchAsync(to.data(), from.data(), bytes.data(), bytes.size(),
                                         &attributes, &first, 1, stream),
                    "copy");
}

std::vector<BlockCopy> BlocksOf(absl::Span<const CopyPart> parts) {
  std::vector<BlockCopy> blocks;
  blocks.reserve(parts.size());
  for (const CopyPart& part : parts) {
    blocks.push_back({part.from, part.to, static_cast<int64_t>(part.bytes)});
  }
  return blocks;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaCopies>> CudaCopies::Create() {
  // Kernels that move states are short, and somebody waits for them; those of steps are neither.
  int lowest = 0, highest = 0;
  ANABRANCH_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "stream"));
  cudaStream_t stream = nullptr;
  ANABRANCH_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, highest), "stream"));
  return std::unique_ptr<CudaCopies>(new CudaCopies(stream));
}

CudaCopies::~CudaCopies() {
  {
    absl::MutexLock lock(&mutex_);
    staging_.reset();
  }
  cudaStreamDestroy(stream_);
}

absl::Status CudaCopies::CopyStaged(CopyDirection direction, absl::Span<const CopyPart> parts) {
  if (staging_ == nullptr) {
    ANABRANCH_ASSIGN_OR_RETURN(staging_, CudaStaging::Create(stream_));
  }
  return direction == CopyDirection::kToHost ? staging_->ToHost(parts) : staging_->ToDevice(parts);
}

// Within the device a kernel copies all parts at once: a slot has hundreds, and each queued alone
// would take longer than its bytes.
absl::Status CudaCopies::Copy(CopyDirection direction, absl::Span<const CopyPart> parts) {
  absl::MutexLock lock(&mutex_);
  if (direction == CopyDirection::kWithin) {
    ANABRANCH_RETURN_IF_ERROR(kernels::cuda::CopyBlocks({BlocksOf(parts)}, stream_));
    return CudaStatus(cudaStreamSynchronize(stream_), "copy");
  }
  if (WorthStaging(parts)) return CopyStaged(direction, parts);
  ANABRANCH_RETURN_IF_ERROR(CopyAll(parts, stream_));
  return CudaStatus(cudaStreamSynchronize(stream_), "copy");
}

absl::Status CudaCopies::Queue(absl::Span<const CopyPart> parts) { return CopyAll(parts, stream_); }

absl::Status CudaCopies::Fill(absl::Span<const absl::Span<uint8_t>> blocks, int byte) {
  std::vector<BlockCopy> parts;
  parts.reserve(blocks.size());
  for (const absl::Span<uint8_t>& block : blocks) {
    parts.push_back({nullptr, block.data(), static_cast<int64_t>(block.size())});
  }
  absl::MutexLock lock(&mutex_);
  ANABRANCH_RETURN_IF_ERROR(
      kernels::cuda::FillBlocks({parts, static_cast<uint8_t>(byte)}, stream_));
  return CudaStatus(cudaStreamSynchronize(stream_), "fill");
}

}  // namespace anabranch
