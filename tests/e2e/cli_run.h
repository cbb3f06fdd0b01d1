// The command line as a user runs it against a server, in this process.
#pragma once

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "clients/cli/cli.h"
#include "service/server.h"

namespace anabranch {

struct CliRun {
  int code = 0;  // the exit status
  std::string out, err;
};

inline CliRun RunCli(const Server& server, std::vector<std::string> args,
                     const std::string& in = "") {
  args.insert(args.begin(), {"--addr", server.address()});
  std::istringstream input(in);
  std::ostringstream out, err;
  CliRun run;
  run.code = cli::RunCli(args, {input, out, err});
  run.out = out.str();
  run.err = err.str();
  return run;
}

}  // namespace anabranch
