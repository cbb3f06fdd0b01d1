#include "statestore/payload_hasher.h"

#include <xxhash.h>

namespace anabranch {

PayloadHasher::PayloadHasher(uint64_t seed) : state_(XXH3_createState()) {
  XXH3_64bits_reset_withSeed(state_, seed);
}

PayloadHasher::~PayloadHasher() { XXH3_freeState(state_); }

void PayloadHasher::Add(absl::string_view bytes) {
  XXH3_64bits_update(state_, bytes.data(), bytes.size());
}

uint64_t PayloadHasher::Sum() const { return XXH3_64bits_digest(state_); }

}  // namespace anabranch
