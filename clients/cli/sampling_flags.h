// The flags that `ask` and `chat` share: how to sample a reply.
//
//   SamplingFlags flags;
//   flags.AddTo(command);
//   ... after parsing ...
//   v1::GenerateRequest request = flags.Request();
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "anabranch/v1/sessions.pb.h"

namespace anabranch::cli {

// Zero means the server's default, as in the proto. Must outlive the parser.
struct SamplingFlags {
  int32_t max_tokens = 0;
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 0;
  float min_p = 0;
  float repetition_penalty = 0;
  uint64_t seed = 0;
  std::vector<std::string> stop;

  void AddTo(CLI::App& command);
  v1::GenerateRequest Request() const;
};

}  // namespace anabranch::cli
