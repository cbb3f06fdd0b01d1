// A captured or computed state made ready for the library.
#pragma once

#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "runtime/state_image.h"
#include "statestore/state_store.h"

namespace anabranch {

// How this server keeps states.
struct StateStoring {
  const StateLayout* layout = nullptr;  // of the model; only the lossy codecs look at it
  StateCodec codec = StateCodec::kExact;
  // Whether what is kept may become lossy in other ways, by the re-encoder.
  bool may_become_lossy = false;

  // The codec of a session, by its policy or else the server's.
  StateCodec CodecFor(const CheckpointPolicy& policy) const { return policy.codec.value_or(codec); }
  // Which states may stand for the tokens of such a session without it asking for them by name:
  // a session that keeps exact states goes on from exact ones alone.
  PrefixKind BasesFor(const CheckpointPolicy& policy) const {
    if (policy.codec.has_value() ? *policy.codec != StateCodec::kExact
                                 : codec != StateCodec::kExact || may_become_lossy) {
      return PrefixKind::kAny;
    }
    return PrefixKind::kExact;
  }
};

// An image in the form that is stored.
struct StoredImage {
  StateImage image;
  uint64_t exact_bytes = 0;  // of payload and blocks before it was encoded
};
// One that was captured in a lossy codec is in that form already.
absl::StatusOr<StoredImage> EncodeFor(const StateStoring& storing, StateCodec codec,
                                      StateImage image);

// Moves the image into `put`: header, payload and blocks, with model, profile, sizes and codec in
// the record. Blocks in `stored` are in the library and are not sent again. Returns the bytes that
// are.
int64_t StageImage(StoredImage stored_image, const absl::flat_hash_set<std::string>& stored,
                   PutState* put);

// The parameter of a state that an image of this origin gives: "base=near", if what it stands on
// (of `base_tokens` tokens; any: -1) came out of a lossy codec, so that its id is not that of the
// exact state.
std::string LossyBaseParameter(const StateOrigin& origin, int64_t base_tokens);

}  // namespace anabranch
