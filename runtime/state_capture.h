// A capture in two halves, for those who need the slot again after the first: its tensors come to
// host memory, then an image is made of them. Where the device codes states they come in the
// image's codec, and are its payload already.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/host_buffers.h"
#include "runtime/slot_pool.h"
#include "runtime/slot_segments.h"
#include "runtime/state_coder.h"
#include "runtime/state_image.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

// What the blocks of `buffers` must have.
uint64_t CaptureBytes(const StateLayout& layout, int64_t vocab);

struct CopiedSlot {
  SlotSegments segments;
  StateCodec codec = StateCodec::kExact;  // that the bytes are in
  Buffer block;
  std::vector<CodingMeasure> measures;  // by entry; empty: they are as they were in the slot
};

// `vocab`: of the last logits that MakeImage will be given; 0 if the layout has an entry of them
// (LastLogitsEntry). The codec is the one asked for, or kExact where the host has to encode: it has
// no coder, or a value that the codec cannot hold. `packed`: recurrent tensors lie there in
// kCompact's form already (kernels/packed_state.h); OUT_OF_RANGE if it cannot hold a value of one.
absl::StatusOr<CopiedSlot> CopySlotToHost(SlotPool& pool, const SlotRef& slot, int64_t vocab,
                                          StateCodec codec, bool packed, HostBuffers* buffers);

// What an image says beside the tensors. Keys and values are read from the pages of `ref`, up to
// its position.
struct ImageParts {
  SlotPool* pool = nullptr;
  const SlotRef* ref = nullptr;
  absl::string_view fingerprint, numerics_profile;
  absl::Span<const float> last_logits;
  StateCodec codec = StateCodec::kExact;
};
absl::StatusOr<StateImage> MakeImage(CopiedSlot slot, const ImageParts& parts);

// The last logits as an entry of a slot: the last one of its layout.
StateEntry LastLogitsEntry(int64_t vocab);

}  // namespace anabranch
