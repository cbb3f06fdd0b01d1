// The session that `append`, `ask` and `chat` work in, and what it is opened with if there is none.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace anabranch::cli {

struct SessionFlags {
  std::string name;
  std::string model;  // empty: the server chooses
};

// NAME and --model. `flags` outlives the parser.
void AddSessionFlags(CLI::App& command, SessionFlags& flags);

// --model of commands that open a session.
void AddModelFlag(CLI::App& command, std::string& model);

}  // namespace anabranch::cli
