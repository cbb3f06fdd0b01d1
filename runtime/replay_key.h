// What a decode step is recorded under (Device::Replay). A record keeps the sizes of its launches,
// so all that they follow from is in the key: how many sequences there are, what is computed for
// them, and up to which context attention looks.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace anabranch {

// The longest context that a record serves which is made of a step whose longest is `max_context`:
// the next power of two, at least the keys of one block of attention. A generation is recorded anew
// a few times as it grows, and launches at most twice the blocks that it needs.
inline int64_t RecordedContext(int64_t max_context) {
  constexpr int64_t kLeast = 256;
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max(max_context, kLeast))));
}

struct DecodeStep {
  int32_t sequences = 0;
  int64_t recorded_context = 0;  // 0: the model has no attention
  bool defers = false;           // writes of recurrent states
  bool draws = false;            // tokens
  bool sums = false;             // directions of an inner layer
};

// Not negative; another for each other step.
inline int64_t ReplayKey(const DecodeStep& step) {
  const int64_t context = std::bit_width(static_cast<uint64_t>(step.recorded_context));
  return context << 40 | int64_t{step.sequences} << 3 | int64_t{step.defers} << 2 |
         int64_t{step.draws} << 1 | int64_t{step.sums};
}

}  // namespace anabranch
