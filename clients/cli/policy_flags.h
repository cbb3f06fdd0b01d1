// The flags of `session create` and `session policy` that say which checkpoints a session keeps.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "anabranch/v1/resources.pb.h"

namespace anabranch::cli {

struct PolicyFlags {
  bool no_turn_ends = false;
  int64_t every = 0;
  std::string thinning = "logarithmic";
  bool thin_turn_ends = false;
  int64_t max_states = 0;
  int64_t max_bytes = 0;
  std::string codec;

  v1::CheckpointPolicy ToProto() const;
};

// `flags` outlives the parser.
void AddPolicyFlags(CLI::App& command, PolicyFlags& flags);

// "turn ends, every 2,048 tokens, thinned logarithmically" and so on.
std::string PolicyLine(const v1::CheckpointPolicy& policy);

}  // namespace anabranch::cli
