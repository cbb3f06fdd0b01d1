// Auxiliary states on a command line, and `anabranch session aux`.
#pragma once

#include <google/protobuf/repeated_ptr_field.h>

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "anabranch/v1/resources.pb.h"
#include "clients/cli/cli.h"

namespace anabranch::cli {

// Each of NAME[=WEIGHT] as the API wants it. A usage error for a weight that is none.
absl::Status AddAuxiliaries(const std::vector<std::string>& texts,
                            google::protobuf::RepeatedPtrField<v1::Auxiliary>* aux);

// "skills/sql (0.5), personas/pirate"; "-" for none.
std::string AuxLine(const v1::Session& session);

// Adds `aux` to the group `session`.
void AddAuxCommand(CLI::App& group, Cli& cli);

}  // namespace anabranch::cli
