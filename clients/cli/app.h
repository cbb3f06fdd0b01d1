// The parser of `anabranch`: global options and all commands.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

#include "clients/cli/cli.h"

namespace anabranch::cli {

// Also used to generate completion scripts, which walk the parser. `cli` outlives the result.
std::unique_ptr<CLI::App> BuildApp(Cli& cli);

}  // namespace anabranch::cli
