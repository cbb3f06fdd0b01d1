// The attention part of states that are computed from states: keys and values put together anew.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "runtime/state_image.h"

namespace anabranch {

// Tokens [from, from + count) of a state.
struct KvRange {
  const StateImage* image = nullptr;
  int64_t from = 0, count = 0;
};

// Blocks, as a StateImage has them, of the ranges one after the other. Keys with a rotary embedding
// are turned by as many positions as they moved. The images fit the layout and hold their ranges.
std::vector<std::string> GatherKv(const StateLayout& layout, absl::Span<const KvRange> ranges);

// The ancestor's tokens (or none) and then what each input added, in order. Each input begins with
// the ancestor's tokens.
std::vector<std::string> ConcatenateKv(const StateLayout& layout,
                                       absl::Span<const StateImage* const> inputs,
                                       const StateImage* ancestor);

// The keys or values of one token, as stored: the row [heads, head_dim] of a paged entry.
const char* KvRow(const StateLayout& layout, const StateImage& image, size_t entry, int64_t token);

}  // namespace anabranch
