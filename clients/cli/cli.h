// What every command of `anabranch` works with: global options, the three streams, the client.
//
//   std::vector<std::string> args = {"session", "ls", "--json"};
//   int code = anabranch::cli::RunCli(args, {std::cin, std::cout, std::cerr});
//
// stdout is data, stderr is messages. Commands get a Cli and return a status; RunCli turns the
// status into one line on stderr and an exit code (exit_code.h).
#pragma once

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "clients/cpp/client.h"

namespace anabranch::cli {

struct Streams {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  // Whether each is a terminal: progress bars, streamed replies and line editing need one.
  bool in_terminal = false;
  bool out_terminal = false;
  bool err_terminal = false;
};

struct GlobalOptions {
  std::string address = "127.0.0.1:50051";
  bool json = false;
  // Seconds a call may take; 0 keeps the client's defaults.
  double timeout_seconds = 0;
};

class Cli {
 public:
  explicit Cli(Streams streams) : streams(streams) {}

  // Connects on first use, to options.address.
  Client& client();

  Streams streams;
  GlobalOptions options;
  // What the command line asked for; set by the chosen command while the line is parsed.
  std::function<absl::Status(Cli&)> command;

 private:
  std::unique_ptr<Client> client_;
};

// Runs one command line (without the program's name) and returns the exit code.
int RunCli(const std::vector<std::string>& args, Streams streams);

}  // namespace anabranch::cli
