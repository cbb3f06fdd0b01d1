// A state as bytes: what capture produces, the library stores and restore reads. Little-endian,
// versioned, every part checksummed (docs/STATE_FORMAT.md). The image is split into a header, one
// payload (windows, recurrent tensors, T, last logits) and KV blocks of up to 256 tokens, which are
// content-addressed so that relatives share them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/host_buffers.h"
#include "runtime/slot_pool.h"
#include "runtime/state_bytes.h"
#include "runtime/state_layout.h"
#include "runtime/state_origin.h"
#include "statestore/base/state_codec.h"

namespace anabranch {

inline constexpr uint32_t kStateFormatVersion = 5;

inline constexpr int32_t kLastLogitsLayer = -1;

// The form of a segment's bytes. On disk.
enum class StateEncoding : uint8_t {
  kPlain = 0,      // the elements as they are
  kGroups16 = 1,   // of float32: 16-bit integers, see runtime/tensor_codec.h
  kMatrices8 = 2,  // of float32: 8-bit integers, compressed
  kPacked8 = 3,    // the same, not compressed: as a device makes and reads them
};

struct StateSegment {
  int32_t layer = 0;  // kLastLogitsLayer: the last logits, float32 [vocab], kind kRecurrent
  StateKind kind = StateKind::kRecurrent;
  StateDType dtype = StateDType::kFloat32;  // of the tensor
  std::vector<int64_t> shape;
  uint64_t offset = 0, bytes = 0;  // in the payload, as stored
  uint64_t checksum = 0;           // XXH3-64 of those bytes
  StateEncoding encoding = StateEncoding::kPlain;
  float error = 0;  // relative L2, as measured when it was encoded
};

struct KvBlockRef {
  std::string hash;    // hex SHA-256 of the block's bytes
  int32_t tokens = 0;  // 1..256; only the last block of a state has fewer than 256
  uint64_t bytes = 0;
};

struct StateHeader {
  uint32_t format_version = kStateFormatVersion;
  std::string fingerprint;       // of the model
  std::string numerics_profile;  // Model::numerics_profile()
  int64_t token_count = 0;       // tokens read since the root
  // What computes works with kExact; state_codec.h knows the others.
  StateCodec codec = StateCodec::kExact;
  StateOrigin origin;
  int32_t vocab = 0;  // length of the last-logits segment; 0: none (nothing read yet)
  std::vector<StateSegment> segments;
  std::vector<KvBlockRef> kv_blocks;
  float kv_error = 0;  // as of a segment, of all blocks
  // Engine::InnerSum; at most 65,536 values, all finite. Empty: not known (all of version 1).
  std::vector<float> inner_sum;
};

struct StateImage {
  StateHeader header;
  StateBytes payload;
  std::vector<std::string> kv_blocks;  // in the order of header.kv_blocks
};

// Header <-> bytes. `header` must be one that CaptureState or ParseStateHeader made. Parsing is a
// pure function of the span: DATA_LOSS says what is wrong (FAILED_PRECONDITION: a newer format
// version); sizes and counts are checked against the bytes present before anything is allocated.
std::string SerializeStateHeader(const StateHeader& header);
absl::StatusOr<StateHeader> ParseStateHeader(absl::string_view bytes);

// Copies the state of an idle sequence into a block of `buffers` (null: ordinary memory).
// `last_logits` may be empty. The image is in `codec`, as
// EncodeState (state_codec.h) makes it; on a device that codes states kCompact lacks compression.
// INTERNAL if a window is not exact in its stored dtype (a model broke its layout's promise).
absl::StatusOr<StateImage> CaptureState(SlotPool& pool, const SlotRef& ref,
                                        const std::string& fingerprint,
                                        const std::string& numerics_profile,
                                        absl::Span<const float> last_logits,
                                        StateCodec codec = StateCodec::kExact,
                                        HostBuffers* buffers = nullptr);

// Whether the image is a whole state of this model: FAILED_PRECONDITION for another fingerprint or
// profile (names both), DATA_LOSS for a wrong table, size or checksum (names the segment).
absl::Status CheckState(const StateImage& image, const StateLayout& layout,
                        const std::string& fingerprint, const std::string& numerics_profile);
// For an image whose payload and blocks were made elsewhere: fills the header's segments, blocks,
// checksums and hashes from header.token_count and header.vocab. INTERNAL if the sizes do not fit.
absl::Status SealState(const StateLayout& layout, StateImage& image);

// Whether RestoreState takes images of this form to the device: exact ones, and those that it
// decodes itself. Others are decoded first (state_codec.h).
bool RestoresForm(Device& device, const StateHeader& header);

struct RestoredState {
  SlotRef ref;
  std::vector<float> last_logits;
  StateOrigin origin;  // of what goes on from it
};
// Checks the image's header and sizes before a slot is acquired, and its checksums while it is
// copied; releases the slot if anything fails. FAILED_PRECONDITION also for a form that
// RestoresForm denies. `buffers`: as of CaptureState.
absl::StatusOr<RestoredState> RestoreState(SlotPool& pool, const StateImage& image,
                                           const std::string& fingerprint,
                                           const std::string& numerics_profile,
                                           HostBuffers* buffers = nullptr);

}  // namespace anabranch
