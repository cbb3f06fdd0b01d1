// Published model shapes that are measured with random weights, and what a peer needs for the same.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace anabranch::bench {

struct Shape {
  std::string name;
  std::string config;  // the text of a config.json
};

const std::vector<Shape>& Shapes();
// Null for a name that is none of them.
const Shape* FindShape(absl::string_view name);

// Milliseconds of state-spaces/mamba 2.3.2 (its own CUDA and Triton kernels, CUDA graphs; bfloat16)
// on one NVIDIA H200, and what Anabranch aims at on the same card. 0: not known.
struct Peer {
  double peer_ms = 0, aim_ms = 0;
};
// `work`: as figures are named, such as "decode, batch 16" or "prefill 8,192".
Peer PeerOf(absl::string_view shape, absl::string_view work);

}  // namespace anabranch::bench
