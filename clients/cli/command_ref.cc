// `anabranch ref ls|set|rm`.
#include <memory>
#include <ostream>

#include "clients/cli/commands.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "clients/cli/state_id.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct SetFlags {
  std::string name;
  std::string target;
  std::string expect;
};

absl::Status List(Cli& cli, const std::string& prefix) {
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<v1::Ref> refs, cli.client().ListRefs(prefix));
  if (cli.options.json) {
    for (const v1::Ref& ref : refs) PrintJson(ToJson(ref), cli.streams.out);
    return absl::OkStatus();
  }
  if (refs.empty()) {
    cli.streams.err << "no refs" << std::endl;
    return absl::OkStatus();
  }
  Table table({"REF", "STATE", "UPDATED"}, {});
  for (const v1::Ref& ref : refs) {
    table.Add({ref.name(), ref.state_id(), AgeOf(ref.update_time())});
  }
  table.Print(cli.streams.out);
  return absl::OkStatus();
}

absl::Status Set(Cli& cli, const SetFlags& flags) {
  v1::SetRefRequest request;
  request.set_name(flags.name);
  request.set_expected_state_id(flags.expect);
  if (LooksLikeStateId(flags.target)) {
    request.set_state_id(flags.target);
  } else {
    ANABRANCH_ASSIGN_OR_RETURN(v1::Ref target, cli.client().GetRef(flags.target));
    request.set_state_id(target.state_id());
  }
  ANABRANCH_ASSIGN_OR_RETURN(v1::Ref ref, cli.client().SetRef(request));
  if (cli.options.json) {
    PrintJson(ToJson(ref), cli.streams.out);
  } else {
    cli.streams.out << ref.name() << " -> " << ref.state_id() << std::endl;
  }
  return absl::OkStatus();
}

absl::Status Remove(Cli& cli, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    v1::DeleteRefRequest request;
    request.set_name(name);
    ANABRANCH_RETURN_IF_ERROR(cli.client().DeleteRef(request));
    if (cli.options.json) {
      PrintJson({{"deleted", name}}, cli.streams.out);
    } else {
      cli.streams.err << "deleted " << name << " (its state stays)" << std::endl;
    }
  }
  return absl::OkStatus();
}

}  // namespace

void AddRefCommands(CLI::App& app, Cli& cli) {
  CLI::App* group = app.add_subcommand("ref", "Names of states: ls, set, rm");
  group->require_subcommand(1);

  auto prefix = std::make_shared<std::string>();
  CLI::App* list = group->add_subcommand("ls", "List refs");
  list->add_option("PREFIX", *prefix, "Only names that start with this");
  list->callback([&cli, prefix] { cli.command = [prefix](Cli& c) { return List(c, *prefix); }; });

  auto flags = std::make_shared<SetFlags>();
  CLI::App* set = group->add_subcommand("set", "Create or move a ref");
  set->add_option("NAME", flags->name, "Ref")->required();
  set->add_option("STATE", flags->target, "State, or a ref to copy")->required();
  set->add_option("--expect", flags->expect,
                  "Only if NAME points to this state now (-: only if there is no such ref)")
      ->type_name("STATE");
  set->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Set(c, *flags); }; });

  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* remove = group->add_subcommand("rm", "Delete refs; states stay");
  remove->add_option("NAME", *names, "Refs")->required();
  remove->callback([&cli, names] { cli.command = [names](Cli& c) { return Remove(c, *names); }; });
}

}  // namespace anabranch::cli
