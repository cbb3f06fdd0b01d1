// What the bytes of a state are made of, for what captures, encodes and checks them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/state_image.h"
#include "runtime/tensor_codec.h"

namespace anabranch {

// The segments that an exact state of this layout has, with offsets and without checksums.
std::vector<StateSegment> SegmentTable(const StateLayout& layout, int32_t vocab);
// "layer 3 recurrent", "last logits": as errors call it.
std::string SegmentName(const StateSegment& segment);

// The form that a codec gives a segment; kMatrices8 may be kPacked8 as well.
StateEncoding EncodingFor(StateCodec codec, const StateSegment& segment);
// How a recurrent tensor is cut for 8 bits.
MatrixCut CutOf(const StateSegment& segment);
int64_t CountOf(const StateSegment& segment);
// Bytes of a segment in a form whose size does not depend on the values (not kMatrices8).
uint64_t BytesIn(StateEncoding encoding, const StateSegment& segment);

uint64_t SegmentChecksum(absl::string_view bytes);
// Hex SHA-256.
absl::StatusOr<std::string> BlockHash(absl::string_view bytes);

}  // namespace anabranch
