// What the bytes of a state are made of, for what captures, encodes and checks them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/state_image.h"

namespace anabranch {

// The segments that an exact state of this layout has, with offsets and without checksums.
std::vector<StateSegment> SegmentTable(const StateLayout& layout, int32_t vocab);
// "layer 3 recurrent", "last logits": as errors call it.
std::string SegmentName(const StateSegment& segment);

uint64_t SegmentChecksum(absl::string_view bytes);
// Hex SHA-256.
absl::StatusOr<std::string> BlockHash(absl::string_view bytes);

}  // namespace anabranch
