// Shell completion scripts, generated from the parser so that they cannot fall behind it.
//
//   std::string script = CompletionScript(*app, "bash");
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "absl/strings/string_view.h"

namespace anabranch::cli {

// `shell` is "bash", "zsh" or "fish". Completes commands, subcommands and flags; other words are
// completed as file names.
std::string CompletionScript(const CLI::App& app, absl::string_view shell);

}  // namespace anabranch::cli
