// XXH3-64 of bytes that come in pieces: over all of them, as PayloadChecksum (record_codec.h) gives
// it of a whole payload.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

struct XXH3_state_s;

namespace anabranch {

class PayloadHasher {
 public:
  // A seed other than 0 gives a checksum of another kind, for what is sealed with its key.
  explicit PayloadHasher(uint64_t seed = 0);
  ~PayloadHasher();
  PayloadHasher(const PayloadHasher&) = delete;
  PayloadHasher& operator=(const PayloadHasher&) = delete;

  void Add(absl::string_view bytes);
  // Of what was added so far.
  uint64_t Sum() const;

 private:
  XXH3_state_s* const state_;
};

}  // namespace anabranch
