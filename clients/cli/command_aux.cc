// `anabranch session aux`: which auxiliary states are merged into a session's core.
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/aux_flags.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "clients/cli/weighted.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct AuxFlags {
  std::string name;
  std::vector<std::string> set, add, drop;
  bool clear = false, show = false;
};

void PrintAux(Cli& cli, const v1::Session& session) {
  if (cli.options.json) return PrintJson(ToJson(session), cli.streams.out);
  const auto name = [](const std::string& id) { return id.empty() ? std::string("-") : id; };
  const int64_t own = session.token_count() - session.base_token_count();
  PrintFields({{"session", session.id()},
               {"core", name(session.core_state_id())},
               {"base", name(session.base_state_id())},
               {"base tokens", HumanCount(session.base_token_count())},
               {"own tokens", HumanCount(own)}},
              cli.streams.out);
  if (session.aux().empty()) return;
  Table table({"AUX", "WEIGHT", "STATE"}, {.right_aligned = {1}});
  for (const v1::Auxiliary& aux : session.aux()) {
    table.Add({aux.id(), absl::StrCat(aux.weight()), aux.state_id()});
  }
  table.Print(cli.streams.out);
}

absl::Status Aux(Cli& cli, const AuxFlags& flags) {
  const bool replaces = flags.clear || !flags.set.empty();
  const bool changes = !flags.add.empty() || !flags.drop.empty();
  if (replaces + changes + flags.show > 1 || (flags.clear && !flags.set.empty())) {
    return UsageError("--set, --clear, --show, and --add with --drop exclude each other");
  }
  if (!replaces && !changes) {
    ANABRANCH_ASSIGN_OR_RETURN(const v1::Session session, cli.client().GetSession(flags.name));
    PrintAux(cli, session);
    return absl::OkStatus();
  }
  v1::SetAuxRequest request;
  request.set_session_id(flags.name);
  request.set_replace(replaces);
  for (const std::string& id : flags.drop) request.add_drop(id);
  ANABRANCH_RETURN_IF_ERROR(
      AddAuxiliaries(replaces ? flags.set : flags.add, request.mutable_add()));
  ANABRANCH_ASSIGN_OR_RETURN(const v1::SetAuxResponse changed, cli.client().SetAux(request));
  if (cli.options.json) {
    PrintJson(ToJson(changed), cli.streams.out);
    return absl::OkStatus();
  }
  PrintAux(cli, changed.session());
  cli.streams.err << UsageLine(changed.usage()) << std::endl;
  return absl::OkStatus();
}

}  // namespace

absl::Status AddAuxiliaries(const std::vector<std::string>& texts,
                            google::protobuf::RepeatedPtrField<v1::Auxiliary>* aux) {
  for (const std::string& text : texts) {
    ANABRANCH_ASSIGN_OR_RETURN(const Weighted weighted, ParseWeighted(text));
    v1::Auxiliary& added = *aux->Add();
    added.set_id(weighted.id);
    added.set_weight(weighted.weight);
  }
  return absl::OkStatus();
}

std::string AuxLine(const v1::Session& session) {
  if (session.aux().empty()) return "-";
  return absl::StrJoin(session.aux(), ", ", [](std::string* out, const v1::Auxiliary& aux) {
    absl::StrAppend(out, aux.id());
    if (aux.weight() != 1) absl::StrAppend(out, " (", aux.weight(), ")");
  });
}

void AddAuxCommand(CLI::App& group, Cli& cli) {
  auto flags = std::make_shared<AuxFlags>();
  CLI::App* aux = group.add_subcommand(
      "aux", "Show or change the auxiliary states (skills, a persona) merged into a session");
  aux->footer(
      "Nothing is read again; what the session itself has read stays. Without flags it shows.");
  aux->add_option("NAME", flags->name, "Session")->required();
  const auto list = [&](const char* flag, std::vector<std::string>* values, const char* what,
                        const char* type) {
    aux->add_option(flag, *values, what)->allow_extra_args(false)->type_name(type);
  };
  list("--set", &flags->set, "These, and no others (repeatable)", "STATE[=WEIGHT]");
  list("--add", &flags->add, "These as well, or with a new weight or state (repeatable)",
       "STATE[=WEIGHT]");
  list("--drop", &flags->drop, "Not these any more (repeatable)", "STATE");
  aux->add_flag("--clear", flags->clear, "None: the core alone");
  aux->add_flag("--show", flags->show, "Change nothing");
  aux->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Aux(c, *flags); }; });
}

}  // namespace anabranch::cli
