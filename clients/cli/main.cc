// `anabranch`: the command line client. See README.md and `anabranch --help`.
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>

#include "clients/cli/cli.h"

int main(int argc, char** argv) {
  // gRPC logs connection failures to stderr; the command reports them in one line.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  // A reader that goes away (`| head`) ends the program quietly, as usual for filters.
  std::signal(SIGPIPE, SIG_DFL);
  std::ios::sync_with_stdio(false);
  return anabranch::cli::RunCli(std::vector<std::string>(argv + 1, argv + argc),
                                {.in = std::cin,
                                 .out = std::cout,
                                 .err = std::cerr,
                                 .in_terminal = isatty(STDIN_FILENO) == 1,
                                 .out_terminal = isatty(STDOUT_FILENO) == 1,
                                 .err_terminal = isatty(STDERR_FILENO) == 1});
}
