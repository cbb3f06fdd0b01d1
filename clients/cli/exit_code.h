// How a status becomes an exit code and one line on stderr.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "clients/cli/json_output.h"

namespace anabranch::cli {

// Exit codes; the help text lists them.
inline constexpr int kExitOk = 0;
inline constexpr int kExitServerError = 1;  // the server refused or failed
inline constexpr int kExitUsage = 2;        // wrong command line or unreadable local input
inline constexpr int kExitUnreachable = 3;  // no server answers at the address
inline constexpr int kExitInterrupted = 130;

// An error of the command line or of local input.
absl::Status UsageError(absl::string_view message);

int ExitCode(const absl::Status& status);

// For people: what happened and, where it is known, what to do.
std::string ErrorLine(const absl::Status& status, absl::string_view address);

// For programs, with --json: {"error": {"code", "reason", "message", "exit_code"}}.
Json ErrorJson(const absl::Status& status, absl::string_view address);

}  // namespace anabranch::cli
