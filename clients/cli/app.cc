#include "clients/cli/app.h"

#include <iostream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/json_output.h"
#include "clients/cli/version.h"

namespace anabranch::cli {
namespace {

constexpr char kFooter[] =
    "NAME is a session. Its ref, the name under which its states are kept, is the same unless\n"
    "`session create --ref` says otherwise.\n\n"
    "Exit codes: 0 ok, 1 the server refused or failed, 2 wrong command line or input,\n"
    "3 no server answers, 130 interrupted.";

// A host and a port; what gRPC would otherwise only report as an unreachable server.
std::string CheckAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return "";
  size_t colon = address.rfind(':');
  int port = 0;
  bool good = colon != std::string::npos && colon > 0 &&
              absl::SimpleAtoi(address.substr(colon + 1), &port) && port > 0 && port < 65536;
  return good ? "" : absl::StrCat("'", address, "' is not HOST:PORT");
}

// "NAME" says enough; CLI11 would print "NAME TEXT".
void HidePositionalTypes(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_positional()) option->type_name("");
  }
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) {
    HidePositionalTypes(*sub);
  }
}

// CLI11 says only that a command is required, also when there was a word that is none.
std::string ParseMessage(const CLI::App& app, const CLI::ParseError& error) {
  std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  bool command_missing = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError) &&
                         absl::StartsWith(error.what(), "A subcommand");
  if (!command_missing) return error.what();
  if (unknown.empty()) return "a command is missing";
  return absl::StrCat("there is no command or option '", unknown.front(), "' here");
}

}  // namespace

Client& Cli::client() {
  if (client_ == nullptr) {
    ClientOptions client_options{.address = options.address};
    if (options.timeout_seconds > 0) {
      client_options.timeout = absl::Seconds(options.timeout_seconds);
      client_options.model_timeout = absl::Seconds(options.timeout_seconds);
    }
    client_ = std::make_unique<Client>(client_options);
  }
  return *client_;
}

std::unique_ptr<CLI::App> BuildApp(Cli& cli) {
  auto app = std::make_unique<CLI::App>(
      "Contexts that a model has read, kept and resumed. Client of anabranchd.", "anabranch");
  app->fallthrough();  // global options may follow the command
  app->require_subcommand(1);
  app->get_formatter()->column_width(34);
  app->set_version_flag("--version", absl::StrCat("anabranch ", kVersion), "Print the version");
  app->add_option("--addr", cli.options.address, "Server to talk to")
      ->envname("ANABRANCH_ADDR")
      ->type_name("HOST:PORT")
      ->check(CLI::Validator(CheckAddress, ""))
      ->capture_default_str();
  app->add_flag("--json", cli.options.json,
                "Machine output: one JSON value per line, also for errors");
  app->add_option("--timeout", cli.options.timeout_seconds,
                  "Longest time a call may take (default: 30, and 3600 if the model runs)")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.001, 1e9).description(""));
  AddAskCommand(*app, cli);
  AddChatCommand(*app, cli);
  AddAppendCommand(*app, cli);
  AddSessionCommands(*app, cli);
  AddBranchCommands(*app, cli);
  AddLogCommands(*app, cli);
  AddGraphCommand(*app, cli);
  AddDelegateCommand(*app, cli);
  AddMergeCommand(*app, cli);
  AddAlgebraCommands(*app, cli);
  AddDiffCommand(*app, cli);
  AddSearchCommand(*app, cli);
  AddStateCommands(*app, cli);
  AddRefCommands(*app, cli);
  AddBundleCommands(*app, cli);
  AddAdminCommands(*app, cli);
  AddStatusCommand(*app, cli);
  AddCompletionCommand(*app, cli);
  app->footer(kFooter);  // after the commands, which would inherit it
  HidePositionalTypes(*app);
  return app;
}

int RunCli(const std::vector<std::string>& args, Streams streams) {
  Cli cli(streams);
  std::unique_ptr<CLI::App> app = BuildApp(cli);
  if (args.empty()) {
    streams.err << app->help();
    return kExitUsage;
  }
  try {
    app->parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::Success& help_or_version) {
    app->exit(help_or_version, streams.out, streams.err);
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    streams.err << "anabranch: " << ParseMessage(*app, error)
                << "\nTry --help after the command.\n";
    return kExitUsage;
  }
  absl::Status status = cli.command(cli);
  streams.out.flush();
  if (status.ok() && !streams.out) status = UsageError("cannot write to standard output");
  if (!status.ok() && cli.options.json) {
    PrintJson(ErrorJson(status, cli.options.address), streams.err);
  } else if (!status.ok()) {
    streams.err << "anabranch: " << ErrorLine(status, cli.options.address) << std::endl;
  }
  return ExitCode(status);
}

}  // namespace anabranch::cli
