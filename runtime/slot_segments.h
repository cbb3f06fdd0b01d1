// How the tensors of a slot become the segments of a payload and back: for what captures states and
// what restores them. Windows of bfloat16 models are float32 in slots and stored in half the bytes;
// where the host narrows them they lie as they are in the slot behind the payload. A device that
// codes states (runtime/state_coder.h) gives the payload itself, in any codec.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/slot_pool.h"
#include "runtime/state_coder.h"
#include "runtime/state_image.h"
#include "runtime/state_layout.h"

namespace anabranch {

class SlotSegments {
 public:
  // `layout` outlives this. `vocab` 0: without last logits.
  SlotSegments(const StateLayout& layout, int64_t vocab);
  // As a device codes them. kCompact gives kPacked8.
  SlotSegments(const StateLayout& layout, int64_t vocab, StateCodec codec);
  // As they are in an image that passed CheckStored, for a device to read: none is kMatrices8.
  SlotSegments(const StateLayout& layout, const StateHeader& header);

  // The segments, without checksums and errors: of the slot's entries, and last the logits.
  const std::vector<StateSegment>& table() const { return table_; }
  uint64_t payload_bytes() const { return payload_bytes_; }
  // Of the payload and what lies behind it.
  uint64_t block_bytes() const { return block_bytes_; }

  size_t num_entries() const { return entries_.size(); }
  int entry(size_t segment) const { return entries_[segment]; }
  bool narrows(size_t segment) const { return wide_[segment] != 0; }
  // Where a segment's tensor lies in a block as it is in the slot.
  uint64_t slot_offset(size_t segment) const {
    return narrows(segment) ? wide_[segment] : table_[segment].offset;
  }

  // The entries [first, last) of a slot for its device's coder. `packed`: what would become
  // kPacked8 is already (kernels/packed_state.h). The payload lies at `payload`.
  std::vector<TensorCoding> Codings(SlotPool& pool, const SlotRef& slot, bool packed, size_t first,
                                    size_t last, char* payload) const;

  // Converts what narrows of the segments [first, last) of a block to its place in the payload.
  // INTERNAL names the first whose values are not exact then.
  absl::Status Narrow(size_t first, size_t last, char* block) const;
  // The other way, from a payload to `to`, which has the bytes of the entry.
  void Widen(size_t segment, const char* payload, char* to) const;

 private:
  void TakeEntries();

  const StateLayout* layout_;
  std::vector<StateSegment> table_;
  std::vector<int> entries_;    // of the layout, by segment
  std::vector<uint64_t> wide_;  // offset behind the payload; 0: the segment is stored as it is
  uint64_t payload_bytes_ = 0, block_bytes_ = 0;
};

// INTERNAL: a tensor does not narrow without loss.
absl::Status Inexact(const StateSegment& segment);

// INTERNAL for a layout whose slots hold neither the stored dtype nor what narrows to it.
absl::Status CheckStorable(const StateLayout& layout);

// Sets the checksums of the segments, which lie inside the payload.
void SumSegments(absl::string_view payload, absl::Span<StateSegment> segments);

// Bytes of a block of keys and values.
uint64_t KvBlockBytes(const StateLayout& layout, int64_t tokens);
// Visits the parts of a block in their stored order: [layer][keys, values][tokens, heads, dim].
// `visit` gets the bytes of the page's first `tokens` tokens and their offset in the block.
template <typename Visit>
void ForBlockParts(SlotPool& pool, const SlotRef& ref, int block, int64_t tokens, Visit visit) {
  uint64_t offset = 0;
  const std::vector<StateEntry>& entries = pool.layout().entries;
  for (size_t e = 0; e < entries.size(); ++e) {
    if (!entries[e].paged()) continue;
    const absl::Span<uint8_t> page = pool.PageBytes(ref, static_cast<int>(e), block);
    const absl::Span<uint8_t> part = page.first(page.size() / kKvPageTokens * tokens);
    visit(part, offset);
    offset += part.size();
  }
}

}  // namespace anabranch
