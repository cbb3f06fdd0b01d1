// The part of a merge that is large: the recurrent tensor of a layer, by the formulas of
// runtime/state_merge.h.
#pragma once

#include <vector>

#include "runtime/state_merge.h"
#include "runtime/state_tensors.h"

namespace anabranch {

// One layer's tensors. They lie in payloads, which keep no alignment.
struct RecurrentLayer {
  RecurrentDecay decay;
  StateDType dtype = StateDType::kFloat32;
  std::vector<const char*> in;         // by input
  const char* old = nullptr;           // of the ancestor; null: zeros
  char* out = nullptr;                 // overlaps none of them
  std::vector<std::vector<double>> t;  // by input, [groups]
  std::vector<double> old_t;           // zeros without an ancestor

  int64_t num_rates() const { return decay.num_rates; }
  int64_t BytesOf(int64_t elements) const {
    return elements * static_cast<int64_t>(StateDTypeBytes(dtype));
  }
};

// Writes all of `layer.out`. `options` has a weight for each input.
void MergeRecurrent(const MergeOptions& options, const RecurrentLayer& layer);

}  // namespace anabranch
