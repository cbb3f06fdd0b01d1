// Captures: from a slot and pages to an image.
#include "runtime/state_capture.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "runtime/state_codec.h"
#include "runtime/state_table.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// All entries. `arrived` is told, rising to their number, how many are there.
absl::Status CopyTensors(SlotPool& pool, const SlotRef& slot, SlotCopy& copy,
                         absl::FunctionRef<void(size_t)> arrived) {
  SlotToCopy to_copy{&slot, &copy, absl::OkStatus()};
  const auto slots = absl::MakeSpan(&to_copy, 1);
  while (copy.copied < copy.segments.num_entries()) {
    CopyEntries(pool, slots, EndOfPiece(slots, copy.copied));
    ANABRANCH_RETURN_IF_ERROR(to_copy.status);
    arrived(copy.copied);
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
  void End() {
    absl::MutexLock lock(&mutex_);
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

 private:
  absl::Mutex mutex_;
  size_t arrived_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

// Without hashes.
absl::Status CopyBlocks(SlotPool& pool, const SlotRef& ref, StateImage& image) {
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
    image.header.kv_blocks.push_back(std::move(block));
    image.kv_blocks.push_back(std::move(bytes));
  }
  return absl::OkStatus();
}

absl::Status HashBlocks(StateImage& image) {
  return ForEachBlock(image.kv_blocks, [&image](size_t i) -> absl::Status {
    ANABRANCH_ASSIGN_OR_RETURN(image.header.kv_blocks[i].hash, BlockHash(image.kv_blocks[i]));
    return absl::OkStatus();
  });
}

// The last logits into the segment at the end of the block.
absl::Status PutLastLogits(absl::Span<const float> logits, char* payload, StateSegment& segment) {
  const absl::string_view plain(reinterpret_cast<const char*>(logits.data()),
                                logits.size() * sizeof(float));
  std::string coded;
  CodecError error;
  const bool codes = segment.encoding == StateEncoding::kGroups16;
  if (codes && !EncodeGroups(logits, coded, error)) {
    return absl::OutOfRangeError("last logits that the codec cannot hold");
  }
  const absl::string_view bytes = codes ? absl::string_view(coded) : plain;
  std::memcpy(payload + segment.offset, bytes.data(), bytes.size());
  segment.error = error.relative();
  SumSegments({payload, segment.offset + segment.bytes}, absl::MakeSpan(&segment, 1));
  return absl::OkStatus();
}

// The image of entries that have been sealed, in the codec that they are in.
absl::StatusOr<StateImage> Finish(SlotCopy copy, const ImageParts& parts) {
  StateImage image;
  StateHeader& header = image.header;
  header.fingerprint = std::string(parts.fingerprint);
  header.numerics_profile = std::string(parts.numerics_profile);
  header.token_count = parts.ref->position;
  header.codec = copy.codec;
  std::vector<StateSegment>& table = copy.table;
  for (size_t i = 0; i < copy.measures.size(); ++i) {
    table[i].error = copy.measures[i].error.relative();
  }
  if (!table.empty() && table.back().layer == kLastLogitsLayer) {
    header.vocab = static_cast<int32_t>(table.back().shape[0]);
  }
  if (!parts.last_logits.empty()) {
    auto* const payload = static_cast<char*>(copy.block.data());
    ANABRANCH_RETURN_IF_ERROR(PutLastLogits(parts.last_logits, payload, table.back()));
  }
  header.segments = std::move(table);
  image.payload = StateBytes(std::move(copy.block), copy.segments.payload_bytes());
  if (!parts.pool->layout().has_kv()) return image;
  ANABRANCH_RETURN_IF_ERROR(CopyBlocks(*parts.pool, *parts.ref, image));
  ANABRANCH_RETURN_IF_ERROR(header.codec == StateCodec::kExact
                                ? HashBlocks(image)
                                : EncodeBlocks(parts.pool->layout(), header.codec, image));
  return image;
}

// What is left of the way to `codec`.
absl::StatusOr<StateImage> Encoded(const StateLayout& layout, absl::StatusOr<StateImage> image,
                                   StateCodec codec) {
  if (!image.ok() || image->header.codec == codec) return image;
  return EncodeState(layout, *std::move(image), codec);
}

// Copies and seals; of a large state at the same time. The copy keeps the caller's thread: the
// first calls of a new one to a device take a while.
absl::StatusOr<StateImage> CaptureAs(StateCodec codec, const ImageParts& parts,
                                     HostBuffers* buffers) {
  SlotPool& pool = *parts.pool;
  ANABRANCH_ASSIGN_OR_RETURN(SlotCopy copy,
                             BeginCopy(pool, static_cast<int64_t>(parts.last_logits.size()), codec,
                                       /*packed=*/false, buffers));
  const size_t entries = copy.segments.num_entries();
  if (copy.segments.payload_bytes() < kWorthThreads) {
    ANABRANCH_RETURN_IF_ERROR(CopyTensors(pool, *parts.ref, copy, [](size_t) {}));
    ANABRANCH_RETURN_IF_ERROR(Seal(copy, entries));
    return Finish(std::move(copy), parts);
  }
  Arrivals arrivals;
  absl::Status sealed;
  std::thread sealing([&] {
    for (size_t done = 0; done < entries;) {
      const size_t there = arrivals.WaitForMore(done);
      if (there == done) break;  // the copy has failed
      sealed.Update(Seal(copy, there));
      done = there;
    }
  });
  const absl::Status copied =
      CopyTensors(pool, *parts.ref, copy, [&arrivals](size_t count) { arrivals.Arrived(count); });
  arrivals.End();
  sealing.join();
  ANABRANCH_RETURN_IF_ERROR(copied);
  ANABRANCH_RETURN_IF_ERROR(sealed);
  return Finish(std::move(copy), parts);
}

}  // namespace

uint64_t CaptureBytes(const StateLayout& layout, int64_t vocab) {
  return SlotSegments(layout, vocab).block_bytes();
}

StateEntry LastLogitsEntry(int64_t vocab) {
  StateEntry entry;
  entry.layer = kLastLogitsLayer;
  entry.shape = {vocab};
  return entry;
}

absl::StatusOr<StateImage> MakeImage(SlotCopy copy, const ImageParts& parts) {
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(parts.pool->layout()));
  return Encoded(parts.pool->layout(), Finish(std::move(copy), parts), parts.codec);
}

absl::StatusOr<StateImage> CaptureState(SlotPool& pool, const SlotRef& ref,
                                        const std::string& fingerprint,
                                        const std::string& numerics_profile,
                                        absl::Span<const float> last_logits, StateCodec codec,
                                        HostBuffers* buffers) {
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(pool.layout()));
  const ImageParts parts{&pool, &ref, fingerprint, numerics_profile, last_logits, codec};
  auto image = CaptureAs(codec, parts, buffers);
  if (absl::IsOutOfRange(image.status()) && codec != StateCodec::kExact) {
    image = CaptureAs(StateCodec::kExact, parts, buffers);
  }
  return Encoded(pool.layout(), std::move(image), codec);
}

}  // namespace anabranch
