// The attention part of a merge: keys and values of several states one after the other.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "runtime/state_image.h"

namespace anabranch {

// Blocks, as a StateImage has them, of the ancestor's tokens (or none) and then of what each input
// added, in order. Keys with a rotary embedding are turned by as many positions as they moved. The
// images fit the layout, and each input begins with the ancestor's tokens.
std::vector<std::string> ConcatenateKv(const StateLayout& layout,
                                       absl::Span<const StateImage* const> inputs,
                                       const StateImage* ancestor);

}  // namespace anabranch
