#include "runtime/slot_segments.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "runtime/state_table.h"
#include "statestore/base/host_threads.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

constexpr uint64_t kAlignment = 64;

bool NarrowsToBFloat16(const StateEntry& entry) {
  return entry.dtype == StateDType::kFloat32 && entry.stored_dtype == StateDType::kBFloat16;
}

// False if a value is not exact: the upper half of a float32 is its bfloat16.
bool NarrowFloats(const char* from, int64_t count, char* to) {
  uint32_t lost = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + 4 * i, 4);
    lost |= bits & 0xffff;
    const uint16_t half = bits >> 16;
    std::memcpy(to + 2 * i, &half, 2);
  }
  return lost == 0;
}

}  // namespace

SlotSegments::SlotSegments(const StateLayout& layout, int64_t vocab)
    : layout_(&layout), table_(SegmentTable(layout, static_cast<int32_t>(vocab))) {
  TakeEntries();
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (!NarrowsToBFloat16(layout.entries[entries_[i]])) continue;
    wide_[i] = block_bytes_;
    block_bytes_ += layout.entries[entries_[i]].bytes();
  }
}

SlotSegments::SlotSegments(const StateLayout& layout, int64_t vocab, StateCodec codec)
    : layout_(&layout), table_(SegmentTable(layout, static_cast<int32_t>(vocab))) {
  uint64_t offset = 0;
  for (StateSegment& segment : table_) {
    const StateEncoding form = EncodingFor(codec, segment);
    segment.encoding = form == StateEncoding::kMatrices8 ? StateEncoding::kPacked8 : form;
    segment.offset = offset;
    segment.bytes = BytesIn(segment.encoding, segment);
    offset += segment.bytes;
  }
  TakeEntries();
}

SlotSegments::SlotSegments(const StateLayout& layout, const StateHeader& header)
    : layout_(&layout), table_(header.segments) {
  TakeEntries();
}

void SlotSegments::TakeEntries() {
  if (!table_.empty()) payload_bytes_ = table_.back().offset + table_.back().bytes;
  block_bytes_ = (payload_bytes_ / kAlignment + 1) * kAlignment;
  for (size_t e = 0; e < layout_->entries.size(); ++e) {
    if (!layout_->entries[e].paged()) entries_.push_back(static_cast<int>(e));
  }
  wide_.assign(entries_.size(), 0);
}

std::vector<TensorCoding> SlotSegments::Codings(SlotPool& pool, const SlotRef& slot, bool packed,
                                                size_t first, size_t last, char* payload) const {
  std::vector<TensorCoding> codings;
  for (size_t i = first; i < last; ++i) {
    const StateSegment& segment = table_[i];
    const absl::Span<uint8_t> tensor = pool.SlotBytes(slot, entry(i));
    TensorCoding coding;
    coding.values = tensor.data();
    coding.count = CountOf(segment);
    coding.host = payload + segment.offset;
    coding.bytes = segment.bytes;
    if (segment.encoding == StateEncoding::kGroups16) {
      coding.form = CodedForm::kGroups16;
    } else if (segment.encoding == StateEncoding::kPacked8) {
      coding.form = packed ? CodedForm::kPackedThere : CodedForm::kPacked8;
      coding.cut = CutOf(segment);
    } else if (NarrowsToBFloat16(layout_->entries[entry(i)])) {
      coding.form = CodedForm::kHalves;
    } else {
      coding.count = static_cast<int64_t>(tensor.size());
    }
    codings.push_back(coding);
  }
  return codings;
}

absl::Status SlotSegments::Narrow(size_t first, size_t last, char* block) const {
  if (std::all_of(wide_.begin(), wide_.end(), [](uint64_t wide) { return wide == 0; })) {
    return absl::OkStatus();
  }
  std::vector<uint8_t> lost(last - first, 0);
  ForEachOnHost(payload_bytes_, last - first, [&](size_t i) {
    const size_t segment = first + i;
    if (!narrows(segment)) return;
    lost[i] = !NarrowFloats(block + wide_[segment], layout_->entries[entry(segment)].num_elements(),
                            block + table_[segment].offset);
  });
  const auto inexact = std::find(lost.begin(), lost.end(), 1);
  if (inexact == lost.end()) return absl::OkStatus();
  return Inexact(table_[first + (inexact - lost.begin())]);
}

absl::Status Inexact(const StateSegment& segment) {
  return absl::InternalError(
      absl::StrCat(SegmentName(segment), " holds values that are not exact bfloat16"));
}

void SlotSegments::Widen(size_t segment, const char* payload, char* to) const {
  const char* from = payload + table_[segment].offset;
  const int64_t count = layout_->entries[entry(segment)].num_elements();
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, from + 2 * i, 2);
    const uint32_t bits = uint32_t{half} << 16;
    std::memcpy(to + 4 * i, &bits, 4);
  }
}

absl::Status CheckStorable(const StateLayout& layout) {
  for (const StateEntry& entry : layout.entries) {
    if (entry.dtype == entry.stored_dtype) continue;
    if (entry.paged() || !NarrowsToBFloat16(entry)) {
      return absl::InternalError(
          absl::StrCat("state entry of layer ", entry.layer, " has no lossless stored form"));
    }
  }
  return absl::OkStatus();
}

void SumSegments(absl::string_view payload, absl::Span<StateSegment> segments) {
  ForEachOnHost(payload.size(), segments.size(), [&](size_t i) {
    StateSegment& segment = segments[i];
    segment.checksum = SegmentChecksum(payload.substr(segment.offset, segment.bytes));
  });
}

uint64_t KvBlockBytes(const StateLayout& layout, int64_t tokens) {
  return layout.kv_page_bytes() / kKvPageTokens * tokens;
}

}  // namespace anabranch
