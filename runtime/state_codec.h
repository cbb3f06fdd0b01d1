// States in fewer bytes. The lossy codecs turn a captured image into a stored one and back:
//
//   near     recurrent tensors, float32 windows, keys and values and the last logits as 16-bit
//            integers with a scale for each group of 128
//   compact  recurrent tensors as 8-bit integers with scales for rows and columns, then zstd; keys
//            with a scale for each channel, values for each token, then zstd; the rest as near
//
// `compact` of a state that a device coded (runtime/state_coder.h) lacks zstd.
//
// T stays float64 and bfloat16 stays as it is (but for keys and values in compact); a tensor that a
// form cannot hold is stored as it was. Pure functions, any thread; docs/STATE_FORMAT.md has the
// bytes. Blocks of keys and values are encoded one by one, so that relatives share the encoded
// ones, too, and one that was decoded is encoded to the same bytes again (float32).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/state_image.h"

namespace anabranch {

// "exact", "near", "compact", "archive".
const char* StateCodecName(StateCodec codec);
// INVALID_ARGUMENT lists the names; kArchive is none of them: no content can be in it.
absl::StatusOr<StateCodec> ParseStateCodec(absl::string_view name);

// `exact` was captured or sealed with this layout. Its header's origin is kept. kExact gives the
// image as it is; INVALID_ARGUMENT for kArchive.
absl::StatusOr<StateImage> EncodeState(const StateLayout& layout, StateImage exact,
                                       StateCodec codec);

// The image as the engine restores it. Checks sizes and checksums of the stored bytes before it
// looks at them: DATA_LOSS names the segment or block. An exact image is given as it is, unchecked:
// restoring it checks all. The origin of a lossy one then says that it went through its codec.
absl::StatusOr<StateImage> DecodeState(const StateLayout& layout, StateImage stored);

// How a sequence that goes on from such an image departs.
StateOrigin OriginAfterRestore(const StateHeader& header);

// What an image of this header takes exactly: payload and blocks.
uint64_t ExactBytes(const StateLayout& layout, const StateHeader& header);

// The largest relative error of its segments and of its blocks, as measured by EncodeState.
float LargestError(const StateHeader& header);

// Parts of the above, for what captures and restores states in their stored form.

// Whether an image's segments are tensors of this layout in forms of its codec, inside the payload
// and of the right sizes: DATA_LOSS names the segment. Checksums are not looked at.
absl::Status CheckStored(const StateLayout& layout, const StateImage& stored);
// The checksum and the scales of a segment that lies inside the payload. DATA_LOSS.
absl::Status CheckSegment(const StateSegment& segment, absl::string_view payload);
// Of an image whose blocks are exact, also their hashes and error. INTERNAL for values that are not
// finite.
absl::Status EncodeBlocks(const StateLayout& layout, StateCodec codec, StateImage& image);
// The exact blocks. DATA_LOSS names the damaged one.
absl::StatusOr<std::vector<std::string>> DecodeBlocks(const StateLayout& layout,
                                                      const StateImage& stored);

}  // namespace anabranch
