// `anabranch fork` and `anabranch rewind`.
#include <memory>
#include <ostream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "clients/cli/named_source.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct ForkFlags {
  std::string source;
  int count = 1;
  std::vector<std::string> names;
  std::string prefix;
};

absl::Status Fork(Cli& cli, const ForkFlags& flags) {
  v1::ForkRequest request;
  if (flags.names.empty()) {
    request.set_count(flags.count);
    request.set_prefix(flags.prefix);
  }
  for (const std::string& name : flags.names) request.add_session_ids(name);
  ANABRANCH_ASSIGN_OR_RETURN(const v1::ForkResponse forked,
                             CallFrom(flags.source, request, [&cli](const v1::ForkRequest& named) {
                               return cli.client().Fork(named);
                             }));
  if (cli.options.json) {
    PrintJson(ToJson(forked), cli.streams.out);
    return absl::OkStatus();
  }
  for (const v1::Session& session : forked.sessions()) cli.streams.out << session.id() << '\n';
  cli.streams.err << "each has " << HumanCount(forked.usage().tokens_reused())
                  << " tokens; none was read again" << std::endl;
  return absl::OkStatus();
}

struct RewindFlags {
  std::string name;
  std::string position;  // "1200": tokens to keep; "-50": tokens to drop; or a mark
  bool dry_run = false;
};

// The position of a mark, or of another ref, in the line that the session stands on.
absl::StatusOr<int64_t> PositionOf(Cli& cli, const std::string& session, const std::string& name) {
  v1::GetLogRequest request;
  request.set_session_id(session);
  ANABRANCH_ASSIGN_OR_RETURN(const PositionLog log, cli.client().GetLog(request));
  const std::string mark = absl::StrCat(session, "/marks/", name);
  for (const v1::LogEntry& entry : log.entries) {
    for (const std::string& ref : entry.ref_names()) {
      if (ref == mark || ref == name) return entry.state().token_count();
    }
  }
  return UsageError(absl::StrCat("--to ", name, " is neither a number of tokens nor a mark that ",
                                 "the session has passed: see anabranch log ", session));
}

absl::StatusOr<v1::RewindRequest> RewindTo(Cli& cli, const RewindFlags& flags) {
  int64_t number = 0;
  if (!absl::SimpleAtoi(flags.position, &number)) {
    ANABRANCH_ASSIGN_OR_RETURN(number, PositionOf(cli, flags.name, flags.position));
  }
  v1::RewindRequest request;
  request.set_session_id(flags.name);
  request.set_token_count(number);
  request.set_dry_run(flags.dry_run);
  if (!absl::StartsWith(flags.position, "-")) return request;
  ANABRANCH_ASSIGN_OR_RETURN(const v1::Session session, cli.client().GetSession(flags.name));
  request.set_token_count(session.token_count() + number);
  request.set_expected_token_count(session.token_count());
  return request;
}

absl::Status Rewind(Cli& cli, const RewindFlags& flags) {
  ANABRANCH_ASSIGN_OR_RETURN(const v1::RewindRequest request, RewindTo(cli, flags));
  ANABRANCH_ASSIGN_OR_RETURN(const v1::RewindResponse done, cli.client().Rewind(request));
  if (cli.options.json) {
    PrintJson(ToJson(done), cli.streams.out);
    return absl::OkStatus();
  }
  const std::string base = done.base_state_id().empty() ? "the beginning" : done.base_state_id();
  PrintFields({{"session", done.session().id()},
               {flags.dry_run ? "would keep" : "keeps", HumanCount(request.token_count())},
               {flags.dry_run ? "would drop" : "dropped", HumanCount(done.tokens_dropped())},
               {"goes on from", base},
               {"to replay", HumanCount(done.tokens_to_replay())}},
              cli.streams.out);
  return absl::OkStatus();
}

void AddFork(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<ForkFlags>();
  CLI::App* fork = app.add_subcommand("fork", "Open sessions that go on from one point");
  fork->add_option("SOURCE", flags->source, "Session, ref or state")->required();
  CLI::Option* count = fork->add_option("-n,--count", flags->count, "How many sessions")
                           ->check(CLI::Range(1, 1024).description(""))
                           ->capture_default_str();
  CLI::Option* prefix = fork->add_option("--prefix", flags->prefix,
                                         "Name them PREFIX/1, PREFIX/2 ... (default: SOURCE)");
  fork->add_option("--as", flags->names, "Name one session (repeatable)")
      ->allow_extra_args(false)
      ->type_name("NAME")
      ->excludes(count)
      ->excludes(prefix);
  fork->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Fork(c, *flags); }; });
}

void AddRewind(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<RewindFlags>();
  CLI::App* rewind = app.add_subcommand("rewind", "Move a session back; states stay");
  rewind->add_option("NAME", flags->name, "Session")->required();
  rewind
      ->add_option("--to", flags->position,
                   "Tokens to keep, with a minus sign tokens to drop (--to=-50), or a mark")
      ->type_name("TOKENS|MARK")
      ->required();
  rewind->add_flag("--dry-run", flags->dry_run, "Only tell what it would cost");
  rewind->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Rewind(c, *flags); }; });
}

}  // namespace

void AddBranchCommands(CLI::App& app, Cli& cli) {
  AddFork(app, cli);
  AddRewind(app, cli);
}

}  // namespace anabranch::cli
