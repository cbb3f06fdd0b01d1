// The flags of `session create` that say what a session has read already, as the client knows it.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "anabranch/v1/resources.pb.h"
#include "clients/cli/cli.h"

namespace anabranch::cli {

struct HistoryFlags {
  std::string text_file;      // raw text; "-": standard input
  std::string messages_file;  // JSON: [{"role": "user", "text": "..."}, ...]; "-" likewise

  // What the flags name, or nothing. Usage errors name the file and what is wrong with it.
  absl::StatusOr<std::optional<v1::Content>> Read(Cli& cli) const;
};

// `flags` outlives the parser. Both exclude `from`.
void AddHistoryFlags(CLI::App& command, CLI::Option* from, HistoryFlags& flags);

}  // namespace anabranch::cli
