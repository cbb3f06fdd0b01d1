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

// Copied in one go: enough for the link, few enough that checksums keep up with it.
constexpr uint64_t kCopiedAtOnce = uint64_t{24} << 20;

char* BytesOf(const CopiedSlot& copied) { return static_cast<char*>(copied.block.data()); }

absl::StatusOr<CopiedSlot> Begin(SlotPool& pool, int64_t vocab, StateCodec codec,
                                 HostBuffers* buffers) {
  const bool codes = pool.device().coder() != nullptr;
  CopiedSlot copied{
      codes ? SlotSegments(pool.layout(), vocab, codec) : SlotSegments(pool.layout(), vocab),
      codes ? codec : StateCodec::kExact,
      Buffer(),
      {}};
  if (codes) copied.measures.resize(copied.segments.num_entries());
  const uint64_t bytes = copied.segments.block_bytes();
  ANABRANCH_ASSIGN_OR_RETURN(copied.block,
                             buffers == nullptr ? Buffer::Allocate(bytes) : buffers->Take());
  if (copied.block.size() >= bytes) return copied;
  return absl::InternalError("the buffers are too small for the state");
}

// Entries [first, last). OUT_OF_RANGE for a value that the codec cannot hold, INTERNAL for one that
// is not exact in its stored dtype.
absl::Status CopyEntries(SlotPool& pool, const SlotRef& slot, bool packed, size_t first,
                         size_t last, CopiedSlot& copied) {
  const SlotSegments& segments = copied.segments;
  if (StateCoder* const coder = pool.device().coder(); coder != nullptr) {
    const auto measures = absl::MakeSpan(copied.measures).subspan(first, last - first);
    ANABRANCH_RETURN_IF_ERROR(coder->ToHost(segments.Codings(pool, slot, packed, first, last),
                                            BytesOf(copied), measures));
    for (size_t i = first; i < last; ++i) {
      if (!copied.measures[i].refused) continue;
      const StateSegment& segment = segments.table()[i];
      if (segment.encoding == StateEncoding::kPlain) return Inexact(segment);
      return absl::OutOfRangeError(absl::StrCat(SegmentName(segment), " has a value that the ",
                                                StateCodecName(copied.codec),
                                                " codec cannot hold"));
    }
    return absl::OkStatus();
  }
  std::vector<CopyPart> parts;
  for (size_t i = first; i < last; ++i) {
    const absl::Span<uint8_t> tensor = pool.SlotBytes(slot, segments.entry(i));
    parts.push_back({tensor.data(), BytesOf(copied) + segments.slot_offset(i), tensor.size()});
  }
  return pool.device().CopyBeside(CopyDirection::kToHost, parts);
}

// All entries. `arrived` is told, rising to their number, how many are there.
absl::Status CopyTensors(SlotPool& pool, const SlotRef& slot, bool packed, CopiedSlot& copied,
                         absl::FunctionRef<void(size_t)> arrived) {
  const SlotSegments& segments = copied.segments;
  uint64_t bytes = 0;
  for (size_t i = 0, first = 0; i < segments.num_entries(); ++i) {
    bytes += segments.table()[i].bytes;
    if (bytes < kCopiedAtOnce && i + 1 < segments.num_entries()) continue;
    ANABRANCH_RETURN_IF_ERROR(CopyEntries(pool, slot, packed, first, i + 1, copied));
    first = i + 1;
    bytes = 0;
    arrived(first);
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

// Makes the final bytes and checksums of the entries [first, last) of what was copied.
absl::Status Seal(const CopiedSlot& copied, size_t first, size_t last,
                  std::vector<StateSegment>& table) {
  ANABRANCH_RETURN_IF_ERROR(copied.segments.Narrow(first, last, BytesOf(copied)));
  SumSegments({BytesOf(copied), copied.segments.payload_bytes()},
              absl::MakeSpan(table).subspan(first, last - first));
  return absl::OkStatus();
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
absl::StatusOr<StateImage> Finish(CopiedSlot copied, std::vector<StateSegment> table,
                                  const ImageParts& parts) {
  StateImage image;
  StateHeader& header = image.header;
  header.fingerprint = std::string(parts.fingerprint);
  header.numerics_profile = std::string(parts.numerics_profile);
  header.token_count = parts.ref->position;
  header.codec = copied.codec;
  for (size_t i = 0; i < copied.measures.size(); ++i) {
    table[i].error = copied.measures[i].error.relative();
  }
  if (!table.empty() && table.back().layer == kLastLogitsLayer) {
    header.vocab = static_cast<int32_t>(table.back().shape[0]);
  }
  if (!parts.last_logits.empty()) {
    ANABRANCH_RETURN_IF_ERROR(PutLastLogits(parts.last_logits, BytesOf(copied), table.back()));
  }
  header.segments = std::move(table);
  image.payload = StateBytes(std::move(copied.block), copied.segments.payload_bytes());
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

// Copies and seals; of a large state at the same time.
absl::StatusOr<StateImage> CaptureAs(StateCodec codec, const ImageParts& parts,
                                     HostBuffers* buffers) {
  SlotPool& pool = *parts.pool;
  ANABRANCH_ASSIGN_OR_RETURN(
      CopiedSlot copied,
      Begin(pool, static_cast<int64_t>(parts.last_logits.size()), codec, buffers));
  const size_t entries = copied.segments.num_entries();
  std::vector<StateSegment> table = copied.segments.table();
  if (copied.segments.payload_bytes() < kWorthThreads) {
    ANABRANCH_RETURN_IF_ERROR(CopyTensors(pool, *parts.ref, false, copied, [](size_t) {}));
    ANABRANCH_RETURN_IF_ERROR(Seal(copied, 0, entries, table));
    return Finish(std::move(copied), std::move(table), parts);
  }
  Arrivals arrivals;
  std::thread copying([&] {
    arrivals.End(CopyTensors(pool, *parts.ref, false, copied,
                             [&arrivals](size_t count) { arrivals.Arrived(count); }));
  });
  absl::Status sealed;
  for (size_t done = 0; done < entries;) {
    const size_t there = arrivals.WaitForMore(done);
    if (there == done) break;  // the copy has failed
    sealed.Update(Seal(copied, done, there, table));
    done = there;
  }
  copying.join();
  ANABRANCH_RETURN_IF_ERROR(arrivals.status());
  ANABRANCH_RETURN_IF_ERROR(sealed);
  return Finish(std::move(copied), std::move(table), parts);
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

absl::StatusOr<CopiedSlot> CopySlotToHost(SlotPool& pool, const SlotRef& slot, int64_t vocab,
                                          StateCodec codec, bool packed, HostBuffers* buffers) {
  ANABRANCH_ASSIGN_OR_RETURN(CopiedSlot copied, Begin(pool, vocab, codec, buffers));
  const absl::Status status = CopyTensors(pool, slot, packed, copied, [](size_t) {});
  if (status.ok()) return copied;
  if (packed || !absl::IsOutOfRange(status) || codec == StateCodec::kExact) return status;
  copied.block = Buffer();
  return CopySlotToHost(pool, slot, vocab, StateCodec::kExact, /*packed=*/false, buffers);
}

absl::StatusOr<StateImage> MakeImage(CopiedSlot slot, const ImageParts& parts) {
  ANABRANCH_RETURN_IF_ERROR(CheckStorable(parts.pool->layout()));
  std::vector<StateSegment> table = slot.segments.table();
  ANABRANCH_RETURN_IF_ERROR(Seal(slot, 0, slot.segments.num_entries(), table));
  return Encoded(parts.pool->layout(), Finish(std::move(slot), std::move(table), parts),
                 parts.codec);
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
