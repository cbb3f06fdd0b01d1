// `anabranch log`, `anabranch mark` and `anabranch edit`: where a history can be gone back to, and
// writing another one from there.
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "clients/cli/source.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct LogFlags {
  std::string source;
  int64_t limit = 0;
  int64_t at = -1;
};

std::string Names(const v1::LogEntry& entry) {
  std::vector<std::string> names(entry.ref_names().begin(), entry.ref_names().end());
  for (const std::string& id : entry.session_ids()) names.push_back(absl::StrCat("(", id, ")"));
  return names.empty() ? "-" : absl::StrJoin(names, " ");
}

absl::Status PrintCost(Cli& cli, const PositionLog& log, int64_t position) {
  const auto replay = log.ReplayTo(position);
  if (!replay.has_value()) {
    return UsageError(absl::StrCat("--at ", position, " is not between ", log.first_token_count,
                                   " and ", log.token_count, ", or lies inside a computed state"));
  }
  const std::string base = BaseOf(log, position);
  if (cli.options.json) {
    PrintJson({{"token_count", position}, {"base_state_id", base}, {"tokens_to_replay", *replay}},
              cli.streams.out);
    return absl::OkStatus();
  }
  PrintFields({{"position", HumanCount(position)},
               {"goes on from", base.empty() ? "the beginning" : base},
               {"to replay", HumanCount(*replay)}},
              cli.streams.out);
  return absl::OkStatus();
}

// The last column tells what reaching a position costs at most, until the next state above.
void PrintTable(Cli& cli, const PositionLog& log, size_t count) {
  Table table({"POSITION", "KIND", "STATE", "SIZE", "CREATED", "REPLAY UP TO", "REFS (SESSIONS)"},
              {.right_aligned = {0, 3, 5}});
  const auto up_to = [](int64_t from, int64_t to) {
    return HumanCount(std::max<int64_t>(to - from - 1, 0));
  };
  if (log.entries.empty() || log.entries.front().state().token_count() < log.token_count) {
    table.Add({HumanCount(log.token_count), "end", "-", "-", "-", "-", "-"});
  }
  for (size_t i = 0; i < count; ++i) {
    const v1::LogEntry& entry = log.entries[i];
    const v1::State& state = entry.state();
    table.Add({HumanCount(state.token_count()), state.kind().empty() ? "-" : state.kind(),
               state.id(), HumanBytes(state.size_bytes()), AgeOf(state.create_time()),
               up_to(state.token_count(), entry.next_token_count()), Names(entry)});
  }
  if (count == log.entries.size() && log.first_token_count == 0) {
    const int64_t next = count == 0 ? log.token_count : log.entries.back().state().token_count();
    table.Add({"0", "start", "-", "-", "-", up_to(0, next), "-"});
  }
  table.Print(cli.streams.out);
}

absl::Status Log(Cli& cli, const LogFlags& flags) {
  ANABRANCH_ASSIGN_OR_RETURN(const PositionLog log, LogOf(cli.client(), flags.source));
  if (flags.at >= 0) return PrintCost(cli, log, flags.at);
  size_t count = log.entries.size();
  if (flags.limit > 0) count = std::min<size_t>(count, flags.limit);
  if (!cli.options.json) {
    PrintTable(cli, log, count);
    return absl::OkStatus();
  }
  for (size_t i = 0; i < count; ++i) PrintJson(ToJson(log.entries[i]), cli.streams.out);
  return absl::OkStatus();
}

absl::Status Mark(Cli& cli, const std::string& session, const std::string& name) {
  v1::CommitRequest request;
  request.set_session_id(session);
  request.set_mark(name);
  ANABRANCH_ASSIGN_OR_RETURN(const v1::CommitResponse done, cli.client().Commit(request));
  if (cli.options.json) {
    PrintJson(ToJson(done), cli.streams.out);
    return absl::OkStatus();
  }
  cli.streams.out << done.ref().name() << ": token " << HumanCount(done.state().token_count())
                  << ", state " << done.state().id() << std::endl;
  return absl::OkStatus();
}

struct EditFlags {
  std::string session;
  std::string text;
  std::string role = "user";
  int64_t at = 0;
  bool raw = false;
};

absl::Status Edit(Cli& cli, const EditFlags& flags) {
  v1::Content content;
  if (flags.raw) {
    content.set_text(flags.text);
  } else {
    v1::Message& message = *content.mutable_messages()->add_messages();
    message.set_role(flags.role);
    message.set_text(flags.text);
  }
  ANABRANCH_ASSIGN_OR_RETURN(const EditResult done,
                             cli.client().EditSession(flags.session, flags.at, content));
  if (cli.options.json) {
    PrintJson({{"before", ToJson(done.before)},
               {"rewind", ToJson(done.rewind)},
               {"append", ToJson(done.append)}},
              cli.streams.out);
    return absl::OkStatus();
  }
  PrintFields({{"session", flags.session},
               {"old line", absl::StrCat(done.before.name(), " (", done.before.state_id(), ")")},
               {"dropped", HumanCount(done.rewind.tokens_dropped())},
               {"replayed", HumanCount(done.rewind.tokens_to_replay())},
               {"read", HumanCount(done.append.usage().tokens_read())},
               {"tokens", HumanCount(done.append.session().token_count())}},
              cli.streams.out);
  return absl::OkStatus();
}

void AddEdit(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<EditFlags>();
  CLI::App* edit = app.add_subcommand(
      "edit", "Go back and read something else; the old line stays under a mark");
  edit->add_option("NAME", flags->session, "Session")->required();
  edit->add_option("--at", flags->at, "Tokens to keep")
      ->type_name("TOKENS")
      ->check(CLI::NonNegativeNumber.description(""))
      ->required();
  edit->add_option("--text", flags->text, "What to read there")->required();
  CLI::Option* role = edit->add_option("--role", flags->role, "Who says it")->capture_default_str();
  edit->add_flag("--raw", flags->raw, "Raw text instead of a message")->excludes(role);
  edit->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Edit(c, *flags); }; });
}

}  // namespace

void AddLogCommands(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<LogFlags>();
  CLI::App* log =
      app.add_subcommand("log", "Positions to go back to, newest first, and what they cost");
  log->add_option("SOURCE", flags->source, "Session, ref or state")->required();
  CLI::Option* limit = log->add_option("-n,--limit", flags->limit, "At most this many")
                           ->check(CLI::Range(int64_t{1}, int64_t{1} << 40).description(""));
  log->add_option("--at", flags->at, "Only what reaching this position costs")
      ->type_name("TOKENS")
      ->check(CLI::NonNegativeNumber.description(""))
      ->excludes(limit);
  log->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Log(c, *flags); }; });

  auto session = std::make_shared<std::string>();
  auto name = std::make_shared<std::string>();
  CLI::App* mark = app.add_subcommand("mark", "Name the position where a session stands");
  mark->add_option("NAME", *session, "Session")->required();
  mark->add_option("MARK", *name, "The ref NAME/marks/MARK will be set")->required();
  mark->callback([&cli, session, name] {
    cli.command = [session, name](Cli& c) { return Mark(c, *session, *name); };
  });
  AddEdit(app, cli);
}

}  // namespace anabranch::cli
