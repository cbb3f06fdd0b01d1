// From what was copied out of a slot to an image, for those who need the slot again before the
// image is made. CaptureState (state_image.h) does both for a sequence that nobody uses.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/slot_copy.h"
#include "runtime/slot_pool.h"
#include "runtime/state_image.h"

namespace anabranch {

// The most that a capture takes of host memory, whatever its codec.
uint64_t CaptureBytes(const StateLayout& layout, int64_t vocab);

// What an image says beside the tensors. Keys and values are read from the pages of `ref`, up to
// its position.
struct ImageParts {
  SlotPool* pool = nullptr;
  const SlotRef* ref = nullptr;
  absl::string_view fingerprint, numerics_profile;
  absl::Span<const float> last_logits;
  StateCodec codec = StateCodec::kExact;
};
// Of a copy whose entries have all arrived and were sealed. In the codec that is asked for, to
// which the host encodes what arrived in another.
absl::StatusOr<StateImage> MakeImage(SlotCopy copy, const ImageParts& parts);

// The last logits as an entry of a slot: the last one of its layout.
StateEntry LastLogitsEntry(int64_t vocab);

}  // namespace anabranch
