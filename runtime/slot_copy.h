// The tensors of slots on their way to host memory, some entries after the others: so that what the
// first layers of a step leave can go while its last ones run. Where the device codes states they
// come in an image's codec and are its payload already.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/host_buffers.h"
#include "runtime/slot_pool.h"
#include "runtime/slot_segments.h"
#include "runtime/state_coder.h"
#include "runtime/state_image.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

struct SlotCopy {
  SlotSegments segments;
  StateCodec codec = StateCodec::kExact;  // that the bytes are in
  // The recurrent tensors lie in kCompact's form in the slot (kernels/packed_state.h).
  bool packed = false;
  Buffer block;
  std::vector<CodingMeasure> measures;  // by entry; empty: they are as they were in the slot
  // The segments, with the checksums of the first `sealed`.
  std::vector<StateSegment> table;
  size_t copied = 0, sealed = 0;  // entries
};

// How a state of the pool is laid out in host memory: `vocab` and codec as below.
SlotSegments SegmentsOfCopy(SlotPool& pool, int64_t vocab, StateCodec codec);

// Nothing is copied yet. `vocab`: of the last logits that the image will be given; 0 if the layout
// has an entry of them. The codec is the one asked for, or kExact where the device has no coder.
// `packed` demands a coder and kCompact. `buffers` may be null.
absl::StatusOr<SlotCopy> BeginCopy(SlotPool& pool, int64_t vocab, StateCodec codec, bool packed,
                                   HostBuffers* buffers);

// A slot of the pool and its copy, and how its last entries arrived: OUT_OF_RANGE for a value that
// the codec cannot hold, INTERNAL for one that is not exact in its stored dtype.
struct SlotToCopy {
  const SlotRef* slot = nullptr;
  SlotCopy* copy = nullptr;
  absl::Status status;
};
// Copies the entries of each up to `last`. Not of one whose status is an error.
void CopyEntries(SlotPool& pool, absl::Span<SlotToCopy> slots, size_t last);

// Where the entries from `at` on end that are worth copying in one go: enough for the link, few
// enough that checksums keep up with it. All copies have as many.
size_t EndOfPiece(absl::Span<const SlotToCopy> slots, size_t at);

// Makes the final bytes and the checksums of entries up to `last`, which have arrived; may run
// while further ones are copied. INTERNAL as above.
absl::Status Seal(SlotCopy& copy, size_t last);

}  // namespace anabranch
