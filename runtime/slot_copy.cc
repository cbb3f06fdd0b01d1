#include "runtime/slot_copy.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/state_codec.h"
#include "runtime/state_table.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

char* BytesOf(const SlotCopy& copy) { return static_cast<char*>(copy.block.data()); }

absl::Status Refused(const SlotCopy& copy, size_t last) {
  for (size_t i = copy.copied; i < last; ++i) {
    if (!copy.measures[i].refused) continue;
    const StateSegment& segment = copy.segments.table()[i];
    if (segment.encoding == StateEncoding::kPlain) return Inexact(segment);
    return absl::OutOfRangeError(absl::StrCat(SegmentName(segment), " has a value that the ",
                                              StateCodecName(copy.codec), " codec cannot hold"));
  }
  return absl::OkStatus();
}

// All of them in one go: a coder's launches and the link take many small tensors as well as a
// large one.
void CodeEntries(SlotPool& pool, StateCoder& coder, absl::Span<SlotToCopy* const> slots,
                 size_t last) {
  std::vector<TensorCoding> codings;
  for (const SlotToCopy* to_copy : slots) {
    const SlotCopy& copy = *to_copy->copy;
    const std::vector<TensorCoding> more =
        copy.segments.Codings(pool, *to_copy->slot, copy.packed, copy.copied, last, BytesOf(copy));
    codings.insert(codings.end(), more.begin(), more.end());
  }
  std::vector<CodingMeasure> measures(codings.size());
  const absl::Status status = coder.ToHost(codings, absl::MakeSpan(measures));
  const CodingMeasure* measure = measures.data();
  for (SlotToCopy* to_copy : slots) {
    SlotCopy& copy = *to_copy->copy;
    for (size_t i = copy.copied; i < last; ++i) copy.measures[i] = *measure++;
    to_copy->status = status.ok() ? Refused(copy, last) : status;
  }
}

absl::Status CopyTensors(SlotPool& pool, const SlotRef& slot, const SlotCopy& copy, size_t last) {
  std::vector<CopyPart> parts;
  for (size_t i = copy.copied; i < last; ++i) {
    const absl::Span<uint8_t> tensor = pool.SlotBytes(slot, copy.segments.entry(i));
    parts.push_back({tensor.data(), BytesOf(copy) + copy.segments.slot_offset(i), tensor.size()});
  }
  return pool.device().CopyBeside(CopyDirection::kToHost, parts);
}

}  // namespace

SlotSegments SegmentsOfCopy(SlotPool& pool, int64_t vocab, StateCodec codec) {
  if (pool.device().coder() == nullptr) return SlotSegments(pool.layout(), vocab);
  return SlotSegments(pool.layout(), vocab, codec);
}

absl::StatusOr<SlotCopy> BeginCopy(SlotPool& pool, int64_t vocab, StateCodec codec, bool packed,
                                   HostBuffers* buffers) {
  const bool codes = pool.device().coder() != nullptr;
  SlotCopy copy{SegmentsOfCopy(pool, vocab, codec),
                codes ? codec : StateCodec::kExact,
                packed,
                Buffer(),
                {},
                {}};
  if (codes) copy.measures.resize(copy.segments.num_entries());
  copy.table = copy.segments.table();
  ANABRANCH_ASSIGN_OR_RETURN(copy.block, TakeBlock(buffers, copy.segments.block_bytes()));
  return copy;
}

// Where the host encodes, or nobody, a copy that fails costs its state alone.
void CopyEntries(SlotPool& pool, absl::Span<SlotToCopy> slots, size_t last) {
  std::vector<SlotToCopy*> wanted;
  for (SlotToCopy& slot : slots) {
    if (slot.status.ok() && slot.copy->copied < last) wanted.push_back(&slot);
  }
  if (StateCoder* const coder = pool.device().coder(); coder != nullptr) {
    CodeEntries(pool, *coder, wanted, last);
  } else {
    for (SlotToCopy* slot : wanted) {
      slot->status = CopyTensors(pool, *slot->slot, *slot->copy, last);
    }
  }
  for (SlotToCopy* slot : wanted) slot->copy->copied = last;
}

size_t EndOfPiece(absl::Span<const SlotToCopy> slots, size_t at) {
  constexpr uint64_t kPiece = uint64_t{24} << 20;
  uint64_t bytes = 0;
  const size_t entries = slots[0].copy->segments.num_entries();
  while (at < entries && bytes < kPiece) {
    for (const SlotToCopy& slot : slots) bytes += slot.copy->segments.table()[at].bytes;
    ++at;
  }
  return at;
}

absl::Status Seal(SlotCopy& copy, size_t last) {
  if (copy.sealed >= last) return absl::OkStatus();
  const size_t first = std::exchange(copy.sealed, last);
  ANABRANCH_RETURN_IF_ERROR(copy.segments.Narrow(first, last, BytesOf(copy)));
  SumSegments({BytesOf(copy), copy.segments.payload_bytes()},
              absl::MakeSpan(copy.table).subspan(first, last - first));
  return absl::OkStatus();
}

}  // namespace anabranch
