// The command groups of `anabranch`, one file each. Each function adds its commands to the parser;
// a command that is chosen sets cli.command. `cli` outlives the parser.
#pragma once

#include <CLI/CLI.hpp>

#include "clients/cli/cli.h"

namespace anabranch::cli {

void AddChatCommand(CLI::App& app, Cli& cli);        // command_chat.cc
void AddAskCommand(CLI::App& app, Cli& cli);         // command_ask.cc
void AddAppendCommand(CLI::App& app, Cli& cli);      // command_append.cc
void AddSessionCommands(CLI::App& app, Cli& cli);    // command_session.cc
void AddBranchCommands(CLI::App& app, Cli& cli);     // command_branch.cc
void AddGraphCommand(CLI::App& app, Cli& cli);       // command_graph.cc
void AddLogCommands(CLI::App& app, Cli& cli);        // command_log.cc
void AddDelegateCommand(CLI::App& app, Cli& cli);    // command_delegate.cc
void AddMergeCommand(CLI::App& app, Cli& cli);       // command_merge.cc
void AddAlgebraCommands(CLI::App& app, Cli& cli);    // command_algebra.cc
void AddDiffCommand(CLI::App& app, Cli& cli);        // command_diff.cc
void AddSearchCommand(CLI::App& app, Cli& cli);      // command_search.cc
void AddStateCommands(CLI::App& app, Cli& cli);      // command_state.cc
void AddRefCommands(CLI::App& app, Cli& cli);        // command_ref.cc
void AddBundleCommands(CLI::App& app, Cli& cli);     // command_bundle.cc
void AddAdminCommands(CLI::App& app, Cli& cli);      // command_admin.cc
void AddStatusCommand(CLI::App& app, Cli& cli);      // command_status.cc
void AddCompletionCommand(CLI::App& app, Cli& cli);  // command_completion.cc

// Parts of the groups `admin` and `state`.
void AddGarbageCommand(CLI::App& admin, Cli& cli);       // command_gc.cc
void AddStateUpdateCommands(CLI::App& state, Cli& cli);  // command_state_update.cc

}  // namespace anabranch::cli
