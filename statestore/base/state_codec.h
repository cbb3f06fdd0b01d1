// How a state's content is kept. The runtime encodes and decodes, the library keeps the word with
// the record, the service decides.
#pragma once

#include <cstdint>

namespace anabranch {

// On disk, in the order of fidelity.
enum class StateCodec : uint8_t {
  kExact = 0,    // every bit
  kNear = 1,     // 16-bit integers with row scales
  kCompact = 2,  // 8-bit integers with row and column scales, compressed
  kArchive = 3,  // no content: tokens alone
};

}  // namespace anabranch
