// `anabranch session create|ls|show|policy|close`.
#include <memory>
#include <ostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cli/aux_flags.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/history_flags.h"
#include "clients/cli/json_output.h"
#include "clients/cli/policy_flags.h"
#include "clients/cli/session_flags.h"
#include "clients/cli/state_id.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

// Tokens per page of `show --text`: the server's limit, so that a seam between two pages, which
// might split a character, is rare.
constexpr int64_t kTextPage = 500'000;

struct CreateFlags {
  std::string name;
  std::string from;
  std::string ref;
  std::string model;
  std::vector<std::string> labels;
  std::vector<std::string> aux;
  PolicyFlags policy;
  HistoryFlags history;
};

void PrintSession(Cli& cli, const v1::Session& session) {
  if (cli.options.json) return PrintJson(ToJson(session), cli.streams.out);
  const std::string head = session.head_state_id().empty() ? "-" : session.head_state_id();
  PrintFields({{"session", session.id()},
               {"ref", session.ref().empty() ? "-" : session.ref()},
               {"tokens", HumanCount(session.token_count())},
               {"head state", head},
               {"head tokens", HumanCount(session.head_token_count())},
               {"core", session.core_state_id().empty() ? "-" : session.core_state_id()},
               {"aux", AuxLine(session)},
               {"loaded", session.loaded() ? "yes" : "no"},
               {"busy", session.busy() ? "yes" : "no"},
               {"checkpoints", PolicyLine(session.checkpoints())},
               {"labels", LabelList(session.labels())},
               {"created", AgeOf(session.create_time())},
               {"updated", AgeOf(session.update_time())},
               {"model", session.model_fingerprint()}},
              cli.streams.out);
}

absl::Status Create(Cli& cli, const CreateFlags& flags) {
  v1::CreateSessionRequest request;
  request.set_session_id(flags.name);
  request.set_ref(flags.ref);
  request.set_model(flags.model);
  *request.mutable_checkpoints() = flags.policy.ToProto();
  if (LooksLikeStateId(flags.from)) {
    request.set_state_id(flags.from);
  } else if (!flags.from.empty()) {
    request.set_ref_name(flags.from);
  }
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<v1::Content> history, flags.history.Read(cli));
  if (history.has_value()) *request.mutable_history() = *history;
  for (const std::string& label : flags.labels) {
    std::pair<std::string, std::string> pair = absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (pair.first.empty() || !absl::StrContains(label, '=')) {
      return UsageError(absl::StrCat("--label ", label, " is not KEY=VALUE"));
    }
    (*request.mutable_labels())[pair.first] = pair.second;
  }
  ANABRANCH_RETURN_IF_ERROR(AddAuxiliaries(flags.aux, request.mutable_aux()));
  ANABRANCH_ASSIGN_OR_RETURN(v1::CreateSessionResponse created,
                             cli.client().CreateSession(request));
  if (cli.options.json) {
    PrintJson({{"session", ToJson(created.session())}, {"usage", ToJson(created.usage())}},
              cli.streams.out);
  } else {
    PrintSession(cli, created.session());
    if (history.has_value()) cli.streams.err << UsageLine(created.usage()) << std::endl;
  }
  return absl::OkStatus();
}

absl::Status List(Cli& cli, const std::string& prefix) {
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<v1::Session> sessions, cli.client().ListSessions(prefix));
  if (cli.options.json) {
    for (const v1::Session& session : sessions) PrintJson(ToJson(session), cli.streams.out);
    return absl::OkStatus();
  }
  if (sessions.empty()) {
    cli.streams.err << "no sessions" << std::endl;
    return absl::OkStatus();
  }
  Table table({"SESSION", "TOKENS", "REF", "STATE", "UPDATED"}, {.right_aligned = {1}});
  for (const v1::Session& session : sessions) {
    table.Add({session.id(), HumanCount(session.token_count()),
               session.ref().empty() ? "-" : session.ref(),
               session.busy() ? "busy" : (session.loaded() ? "loaded" : "stored"),
               AgeOf(session.update_time())});
  }
  table.Print(cli.streams.out);
  return absl::OkStatus();
}

// Everything the session has read and said, page by page.
absl::Status PrintText(Cli& cli, const std::string& name) {
  v1::GetTokensRequest request;
  request.set_session_id(name);
  request.set_text_only(true);
  request.set_limit(kTextPage);
  std::string last;
  for (int64_t offset = 0;;) {
    request.set_offset(offset);
    ANABRANCH_ASSIGN_OR_RETURN(v1::GetTokensResponse page, cli.client().GetTokens(request));
    offset += kTextPage;
    if (cli.options.json) {
      PrintJson({{"text", page.text()}, {"total", page.total()}}, cli.streams.out);
    } else {
      last = cli.streams.out_terminal ? Printable(page.text()) : page.text();
      cli.streams.out << last;
    }
    if (offset >= page.total()) break;
  }
  if (cli.streams.out_terminal && !absl::EndsWith(last, "\n")) cli.streams.out << '\n';
  return absl::OkStatus();
}

absl::Status Show(Cli& cli, const std::string& name, bool text) {
  if (text) return PrintText(cli, name);
  ANABRANCH_ASSIGN_OR_RETURN(v1::Session session, cli.client().GetSession(name));
  PrintSession(cli, session);
  return absl::OkStatus();
}

absl::Status Close(Cli& cli, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    v1::CloseSessionRequest request;
    request.set_session_id(name);
    ANABRANCH_RETURN_IF_ERROR(cli.client().CloseSession(request));
    if (cli.options.json) {
      PrintJson({{"closed", name}}, cli.streams.out);
    } else {
      cli.streams.err << "closed " << name << " (its states and refs stay)" << std::endl;
    }
  }
  return absl::OkStatus();
}

void AddCreate(CLI::App& group, Cli& cli) {
  auto flags = std::make_shared<CreateFlags>();
  CLI::App* create = group.add_subcommand("create", "Open a session, empty or from a state");
  create->add_option("NAME", flags->name, "Name of the new session")->required();
  CLI::Option* from = create->add_option("--from", flags->from, "Continue from this ref or state");
  from->type_name("REF|STATE");
  AddHistoryFlags(*create, from, flags->history);
  create
      ->add_option("--aux", flags->aux,
                   "Merge in this state, such as a skill or a persona (repeatable)")
      ->allow_extra_args(false)
      ->type_name("STATE[=WEIGHT]");
  AddModelFlag(*create, flags->model);
  create->add_option("--ref", flags->ref, "Ref that commits move (default: NAME; - for none)");
  create->add_option("--label", flags->labels, "Attach KEY=VALUE (repeatable)")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  AddPolicyFlags(*create, flags->policy);
  create->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Create(c, *flags); }; });
}

absl::Status SetPolicy(Cli& cli, const std::string& name, const PolicyFlags& flags) {
  v1::UpdateSessionRequest request;
  request.set_session_id(name);
  *request.mutable_checkpoints() = flags.ToProto();
  ANABRANCH_ASSIGN_OR_RETURN(const v1::Session session, cli.client().UpdateSession(request));
  PrintSession(cli, session);
  return absl::OkStatus();
}

void AddPolicy(CLI::App& group, Cli& cli) {
  auto name = std::make_shared<std::string>();
  auto flags = std::make_shared<PolicyFlags>();
  CLI::App* policy = group.add_subcommand("policy", "Set which checkpoints a session keeps");
  policy->add_option("NAME", *name, "Session")->required();
  AddPolicyFlags(*policy, *flags);
  policy->callback([&cli, name, flags] {
    cli.command = [name, flags](Cli& c) { return SetPolicy(c, *name, *flags); };
  });
}

}  // namespace

void AddSessionCommands(CLI::App& app, Cli& cli) {
  CLI::App* group =
      app.add_subcommand("session", "Live contexts: create, ls, show, aux, policy, close");
  group->require_subcommand(1);
  AddCreate(*group, cli);
  AddPolicy(*group, cli);
  AddAuxCommand(*group, cli);

  auto prefix = std::make_shared<std::string>();
  CLI::App* list = group->add_subcommand("ls", "List sessions");
  list->add_option("PREFIX", *prefix, "Only names that start with this");
  list->callback([&cli, prefix] { cli.command = [prefix](Cli& c) { return List(c, *prefix); }; });

  auto name = std::make_shared<std::string>();
  auto text = std::make_shared<bool>(false);
  CLI::App* show = group->add_subcommand("show", "Show one session");
  show->add_option("NAME", *name, "Session")->required();
  show->add_flag("--text", *text, "Print everything it has read and said");
  show->callback(
      [&cli, name, text] { cli.command = [name, text](Cli& c) { return Show(c, *name, *text); }; });

  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* close = group->add_subcommand("close", "Forget sessions; states and refs stay");
  close->add_option("NAME", *names, "Sessions")->required();
  close->callback([&cli, names] { cli.command = [names](Cli& c) { return Close(c, *names); }; });
}

}  // namespace anabranch::cli
