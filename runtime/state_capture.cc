// Captures: from a slot and pages to an image.
#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "runtime/host_threads.h"
#include "runtime/slot_segments.h"
#include "runtime/state_image.h"
#include "runtime/state_table.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Copied in one go: enough for the link, few enough that checksums keep up with it.
constexpr uint64_t kCopiedAtOnce = uint64_t{24} << 20;

// Copies the slot's tensors into the block. `arrived` is told, rising to their number, how many
// segments are there.
absl::Status CopyTensors(const SlotSegments& segments, SlotPool& pool, const SlotRef& slot,
                         char* block, absl::FunctionRef<void(size_t)> arrived) {
  std::vector<CopyPart> parts;
  uint64_t bytes = 0;
  for (size_t i = 0; i < segments.num_entries(); ++i) {
    const absl::Span<uint8_t> tensor = pool.SlotBytes(slot, segments.entry(i));
    parts.push_back({tensor.data(), block + segments.slot_offset(i), tensor.size()});
    bytes += tensor.size();
    if (bytes < kCopiedAtOnce && i + 1 < segments.num_entries()) continue;
    ANABRANCH_RETURN_IF_ERROR(pool.device().CopyBeside(CopyDirection::kToHost, parts));
    parts.clear();
    bytes = 0;
    arrived(i + 1);
  }
  return absl::OkStatus();
}

// How far a copy on another thread has come.
class Arrivals {
 public:
  void Arrived(size_t segments) {
    absl::MutexLock lock(&mutex_);
    arrived_ = segments;
  }
  void End(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    status_ = std::move(status);
    ended_ = true;
  }
  // More than `seen` segments, or as many as there are when the copy has ended.
  size_t WaitForMore(size_t seen) {
    absl::MutexLock lock(&mutex_);
    const auto more = [this, seen]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return ended_ || arrived_ > seen;
    };
    mutex_.Await(absl::Condition(&more));
    return arrived_;
  }
  absl::Status status() {
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  absl::Mutex mutex_;
  size_t arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<Buffer> TakeBlock(const SlotSegments& segments, HostBuffers* buffers) {
  const uint64_t bytes = segments.block_bytes();
  ANABRANCH_ASSIGN_OR_RETURN(Buffer block,
                             buffers == nullptr ? Buffer::Allocate(bytes) : buffers->Take());
  if (block.size() < bytes) return absl::InternalError("the buffers are too small for the state");
  return block;
}

absl::Status CaptureBlocks(SlotPool& pool, const SlotRef& ref, StateImage& image) {
  for (int64_t start = 0; start < ref.position; start += kKvPageTokens) {
    KvBlockRef block;
    block.tokens = std::min<int64_t>(ref.position - start, kKvPageTokens);
    block.bytes = KvBlockBytes(pool.layout(), block.tokens);
    std::string bytes(block.bytes, '\0');
    std::vector<CopyPart> parts;
    ForBlockParts(pool, ref, start / kKvPageTokens, block.tokens,
                  [&](absl::Span<uint8_t> part, uint64_t offset) {
                    parts.push_back({part.data(), bytes.data() + offset, part.size()});
                  });
    ANABRANCH_RETURN_IF_ERROR(pool.device().CopyBeside(CopyDirection::kToHost, parts));
    ANABRANCH_ASSIGN_OR_RETURN(block.hash, BlockHash(bytes));
    image.header.kv_blocks.push_back(std::move(block));
    image.kv_blocks.push_back(std::move(bytes));
  }
  return absl::OkStatus();
}

// The image whose tensors have been sealed in `block`: all but the last logits, keys and values.
absl::StatusOr<StateImage> Finish(std::vector<StateSegment> table, Buffer block, SlotPool& pool,
                                  const SlotRef& ref, const std::string& fingerprint,
                                  const std::string& numerics_profile,
                                  absl::Span<const float> last_logits) {
  StateImage image;
  image.header.fingerprint = fingerprint;
  image.header.numerics_profile = numerics_profile;
  image.header.token_count = ref.position;
  image.header.vocab = static_cast<int32_t>(last_logits.size());
  image.header.segments = std::move(table);
  uint64_t bytes = 0;
  if (!image.header.segments.empty()) {
    StateSegment& last = image.header.segments.back();
    bytes = last.offset + last.bytes;
    if (!last_logits.empty()) {
      char* const payload = static_cast<char*>(block.data());
      std::memcpy(payload + last.offset, last_logits.data(), last.bytes);
      SumSegments({payload, bytes}, absl::MakeSpan(&last, 1));
    }
  }
  image.payload = StateBytes(std::move(block), bytes);
  if (pool.layout().has_kv()) ANABRANCH_RETURN_IF_ERROR(CaptureBlocks(pool, ref, image));
  return image;
}

// Makes the final bytes and checksums of the segments [first, last) of what was copied.
absl::Status Seal(const SlotSegments& segments, size_t first, size_t last, char* block,
                  std::vector<StateSegment>& table) {
  ANABRANCH_RETURN_IF_ERROR(segments.Narrow(first, last, block));
  SumSegments({block, segments.payload_bytes()},
              absl::MakeSpan(table).subspan(first, last - first));
  return absl::OkStatus();
}

}  // namespace

uint64_t CaptureBytes(const StateLayout& layout, int64_t vocab) {
  return SlotSegments(layout, vocab).block_bytes();
}

absl::StatusOr<Buffer> CopySlotToHost(SlotPool& pool, const SlotRef& slot, int64_t vocab,
                                      HostBuffers* buffers) {
  const SlotSegments segments(pool.layout(), vocab);
  ANABRANCH_ASSIGN_OR_RETURN(Buffer block, TakeBlock(segments, buffers));
  ANABRANCH_RETURN_IF_ERROR(
      CopyTensors(segments, pool, slot, static_cast<char*>(block.data()), [](size_t) {}));
  return block;
}

absl::StatusOr<StateImage> MakeImage(Buffer tensors, SlotPool& pool, const SlotRef& ref,
                                     const std::string& fingerprint,
                                     const std::string& numerics_profile,
                                     absl::Span<const float> last_logits) {
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(pool.layout()));
  const SlotSegments segments(pool.layout(), static_cast<int64_t>(last_logits.size()));
  std::vector<StateSegment> table = segments.table();
  ANABRANCH_RETURN_IF_ERROR(
      Seal(segments, 0, segments.num_entries(), static_cast<char*>(tensors.data()), table));
  return Finish(std::move(table), std::move(tensors), pool, ref, fingerprint, numerics_profile,
                last_logits);
}

// Of a large state, checksums are made while the rest is being copied.
absl::StatusOr<StateImage> CaptureState(SlotPool& pool, const SlotRef& ref,
                                        const std::string& fingerprint,
                                        const std::string& numerics_profile,
                                        absl::Span<const float> last_logits, HostBuffers* buffers) {
  const auto vocab = static_cast<int64_t>(last_logits.size());
  const SlotSegments segments(pool.layout(), vocab);
  if (segments.payload_bytes() < kWorthThreads) {
    ANABRANCH_ASSIGN_OR_RETURN(Buffer tensors, CopySlotToHost(pool, ref, vocab, buffers));
    return MakeImage(std::move(tensors), pool, ref, fingerprint, numerics_profile, last_logits);
  }
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(pool.layout()));
  ANABRANCH_ASSIGN_OR_RETURN(Buffer block, TakeBlock(segments, buffers));
  auto* const bytes = static_cast<char*>(block.data());
  std::vector<StateSegment> table = segments.table();
  Arrivals arrivals;
  std::thread copying([&] {
    arrivals.End(CopyTensors(segments, pool, ref, bytes,
                             [&arrivals](size_t count) { arrivals.Arrived(count); }));
  });
  absl::Status sealed;
  for (size_t done = 0; done < segments.num_entries();) {
    const size_t there = arrivals.WaitForMore(done);
    if (there == done) break;  // the copy has failed
    sealed.Update(Seal(segments, done, there, bytes, table));
    done = there;
  }
  copying.join();
  ANABRANCH_RETURN_IF_ERROR(arrivals.status());
  ANABRANCH_RETURN_IF_ERROR(sealed);
  return Finish(std::move(table), std::move(block), pool, ref, fingerprint, numerics_profile,
                last_logits);
}

}  // namespace anabranch
