// How large the tensors of a state are, head by head: what people look at to see what a state
// holds.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/state_image.h"

namespace anabranch {

struct TensorStats {
  int32_t layer = 0;  // kLastLogitsLayer: the last logits
  StateKind kind = StateKind::kRecurrent;
  std::vector<int64_t> shape;  // as stored; of keys and values [tokens, heads, head_dim]
  // Roots of sums of squares. Heads are the first dimension of a shape of three, of keys and values
  // the second. Without heads it is channels, of more than 256 in 64 groups of neighbours: the
  // first dimension, of a window the last. The last logits: one in all.
  std::vector<float> norms;
  float max_abs = 0;  // of the finite values
  int64_t nonfinite_count = 0;
  uint64_t checksum = 0;  // XXH3-64 of the stored bytes; 0 for keys and values
};

// One for each tensor, by layer, the last logits last. `image` passed CheckState with this layout.
std::vector<TensorStats> ComputeStateStats(const StateLayout& layout, const StateImage& image);

}  // namespace anabranch
