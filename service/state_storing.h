// A captured or computed state made ready for the library.
#pragma once

#include <string>

#include "absl/container/flat_hash_set.h"
#include "runtime/state_image.h"
#include "statestore/state_store.h"

namespace anabranch {

// Moves the image into `put`: header, payload and blocks, with model, profile and sizes in the
// record. Blocks in `stored` are in the library and are not sent again. Returns the bytes that are.
int64_t StageImage(StateImage image, const absl::flat_hash_set<std::string>& stored, PutState* put);

}  // namespace anabranch
