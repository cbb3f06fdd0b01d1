// Where a state's values depart from the pure function of model and tokens: it went on from one
// that had been kept in a lossy codec. Carried along by whatever goes on from it.
#pragma once

#include <cstdint>

#include "statestore/base/state_codec.h"

namespace anabranch {

struct StateOrigin {
  uint32_t lossy_restores = 0;  // how many times; 0: it does not depart
  // The last time: the codec, and how many tokens had been read there. An image that was decoded
  // has its own end.
  StateCodec restored_codec = StateCodec::kExact;
  int64_t restored_at = 0;

  friend bool operator==(const StateOrigin&, const StateOrigin&) = default;
};

}  // namespace anabranch
