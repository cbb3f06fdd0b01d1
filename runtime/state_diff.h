// How far two states of one model lie apart, per layer and head.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/state_image.h"

namespace anabranch {

struct Distance {
  double norm_a = 0, norm_b = 0;  // L2
  double relative_l2 = 0;  // |a - b| / max(|a|, |b|): 0 for equal, at most 2; 0 if both are 0
  double cosine = 1;       // of the angle between them; 1 if either is 0
};

// One tensor of a layer. A part is a head; where there are more than kMaxDiffParts of them (the
// channels of Mamba-1), it is that many neighbours.
struct TensorDistance {
  int32_t layer = 0;
  StateKind kind = StateKind::kRecurrent;  // or kKeys, kValues
  int64_t heads_per_part = 1;
  std::vector<Distance> parts;
  Distance whole;
};

inline constexpr int64_t kMaxDiffParts = 128;

// Of recurrent tensors, keys and values, by layer. Keys and values are compared token by token;
// what one state lacks counts as zeros. Both images are whole states with this layout.
absl::StatusOr<std::vector<TensorDistance>> DiffStates(const StateLayout& layout,
                                                       const StateImage& a, const StateImage& b);

}  // namespace anabranch
