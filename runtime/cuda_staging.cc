#include "runtime/cuda_staging.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/context.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

using kernels::CudaStatus;

constexpr size_t kBlock = size_t{512} << 10;  // what one thread copies at a time

// Where the pieces lie in a pinned buffer.
std::vector<size_t> Offsets(absl::Span<const CopyPart> load) {
  std::vector<size_t> offsets;
  size_t offset = 0;
  for (const CopyPart& piece : load) {
    offsets.push_back(offset);
    offset += piece.bytes;
  }
  return offsets;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStaging>> CudaStaging::Create(cudaStream_t stream) {
  std::unique_ptr<CudaStaging> staging(new CudaStaging(stream));
  for (int side : {0, 1}) {
    void* memory = nullptr;
    ANABRANCH_RETURN_IF_ERROR(CudaStatus(cudaMallocHost(&memory, kBytes), "pinned memory"));
    staging->pinned_[side] = static_cast<char*>(memory);
    ANABRANCH_RETURN_IF_ERROR(CudaStatus(
        cudaEventCreateWithFlags(&staging->done_[side], cudaEventDisableTiming), "event"));
  }
  return staging;
}

CudaStaging::~CudaStaging() {
  for (int side : {0, 1}) {
    if (done_[side] != nullptr) cudaEventDestroy(done_[side]);
    cudaFreeHost(pinned_[side]);
  }
}

// Pieces end at the borders of a buffer and of a block, so that threads can share them out.
std::vector<CudaStaging::Load> CudaStaging::Split(absl::Span<const CopyPart> parts) {
  std::vector<Load> loads;
  size_t room = 0;
  for (const CopyPart& part : parts) {
    for (size_t at = 0; at < part.bytes;) {
      if (room == 0) {
        loads.emplace_back();
        room = kBytes;
      }
      const size_t bytes = std::min({part.bytes - at, room, kBlock});
      loads.back().push_back(
          {static_cast<const char*>(part.from) + at, static_cast<char*>(part.to) + at, bytes});
      at += bytes;
      room -= bytes;
    }
  }
  return loads;
}

absl::Status CudaStaging::Wait(int side) {
  return CudaStatus(cudaEventSynchronize(done_[side]), "copy");
}

void CudaStaging::Gather(const Load& load, char* pinned) const {
  const std::vector<size_t> offsets = Offsets(load);
  ForEachOnHost(kBytes, load.size(),
                [&](size_t i) { std::memcpy(pinned + offsets[i], load[i].from, load[i].bytes); });
}

void CudaStaging::Scatter(const Load& load, const char* pinned) const {
  const std::vector<size_t> offsets = Offsets(load);
  ForEachOnHost(kBytes, load.size(),
                [&](size_t i) { std::memcpy(load[i].to, pinned + offsets[i], load[i].bytes); });
}

absl::Status CudaStaging::ToDevice(absl::Span<const CopyPart> parts) {
  const std::vector<Load> loads = Split(parts);
  for (size_t i = 0; i < loads.size(); ++i) {
    const int side = i % 2;
    if (i >= 2) ANABRANCH_RETURN_IF_ERROR(Wait(side));
    Gather(loads[i], pinned_[side]);
    const char* from = pinned_[side];
    for (const CopyPart& piece : loads[i]) {
      ANABRANCH_RETURN_IF_ERROR(CudaStatus(
          cudaMemcpyAsync(piece.to, from, piece.bytes, cudaMemcpyHostToDevice, stream_), "copy"));
      from += piece.bytes;
    }
    ANABRANCH_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(done_[side], stream_), "copy"));
  }
  return CudaStatus(cudaStreamSynchronize(stream_), "copy");
}

absl::Status CudaStaging::ToHost(absl::Span<const CopyPart> parts) {
  const std::vector<Load> loads = Split(parts);
  // One load ahead of the one that is scattered.
  for (size_t i = 0; i <= loads.size(); ++i) {
    if (i < loads.size()) {
      const int side = i % 2;
      char* to = pinned_[side];
      for (const CopyPart& piece : loads[i]) {
        ANABRANCH_RETURN_IF_ERROR(CudaStatus(
            cudaMemcpyAsync(to, piece.from, piece.bytes, cudaMemcpyDeviceToHost, stream_), "copy"));
        to += piece.bytes;
      }
      ANABRANCH_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(done_[side], stream_), "copy"));
    }
    if (i == 0) continue;
    ANABRANCH_RETURN_IF_ERROR(Wait((i - 1) % 2));
    Scatter(loads[i - 1], pinned_[(i - 1) % 2]);
  }
  return absl::OkStatus();
}

}  // namespace anabranch
