// `anabranch state ls|show|log|recode|archive|rm`; command_state_update.cc has expiry, pins and
// labels.
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/codec_names.h"
#include "clients/cli/commands.h"
#include "clients/cli/format.h"
#include "clients/cli/json_output.h"
#include "clients/cli/source.h"
#include "clients/cli/state_plot.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

void PrintStates(Cli& cli, const std::vector<v1::State>& states) {
  if (cli.options.json) {
    for (const v1::State& state : states) PrintJson(ToJson(state), cli.streams.out);
    return;
  }
  if (states.empty()) {
    cli.streams.err << "no states" << std::endl;
    return;
  }
  Table table({"STATE", "TOKENS", "SPAN", "SIZE", "CODEC", "CREATED", "LABELS"},
              {.right_aligned = {1, 2, 3}});
  for (const v1::State& state : states) {
    table.Add({state.id(), HumanCount(state.token_count()), HumanCount(state.span_token_count()),
               HumanBytes(state.size_bytes()), CodecName(state.codec()), AgeOf(state.create_time()),
               LabelList(state.labels())});
  }
  table.Print(cli.streams.out);
}

absl::Status List(Cli& cli, const std::string& model, int64_t limit) {
  v1::ListStatesRequest request;
  request.set_model_fingerprint(model);
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<v1::State> states,
                             cli.client().ListStates(request, limit));
  PrintStates(cli, states);
  return absl::OkStatus();
}

absl::Status Log(Cli& cli, const std::string& id, int64_t limit) {
  ANABRANCH_ASSIGN_OR_RETURN(std::vector<v1::State> states, cli.client().GetLineage(id, limit));
  PrintStates(cli, states);
  return absl::OkStatus();
}

std::string LossyPast(const v1::State& state) {
  if (state.lossy_restores() == 0) return "none: the exact function of model and tokens";
  return absl::StrCat("went on from lossy states ", HumanCount(state.lossy_restores()), " times");
}

absl::Status Recode(Cli& cli, const std::vector<std::string>& ids, v1::StateCodec codec) {
  for (const std::string& id : ids) {
    v1::RecodeStateRequest request;
    request.set_id(id);
    request.set_codec(codec);
    ANABRANCH_ASSIGN_OR_RETURN(const v1::RecodeStateResponse recoded,
                               cli.client().RecodeState(request));
    if (cli.options.json) {
      PrintJson(ToJson(recoded), cli.streams.out);
      continue;
    }
    std::string line = absl::StrCat(recoded.state().id(), ": ", StoredLine(recoded.state()));
    if (recoded.usage().tokens_replayed() > 0) {
      absl::StrAppend(&line, "; ", HumanCount(recoded.usage().tokens_replayed()),
                      " tokens read again");
    }
    cli.streams.out << line << std::endl;
  }
  return absl::OkStatus();
}

absl::Status Show(Cli& cli, const std::string& id) {
  ANABRANCH_ASSIGN_OR_RETURN(v1::State state, cli.client().GetState(id));
  if (cli.options.json) {
    PrintJson(ToJson(state), cli.streams.out);
    return absl::OkStatus();
  }
  const std::string parents =
      state.parent_ids().empty() ? "-" : absl::StrJoin(state.parent_ids(), " ");
  PrintFields({{"state", state.id()},
               {"parents", parents},
               {"operation", state.operation()},
               {"kind", state.kind().empty() ? "-" : state.kind()},
               {"thinned", state.thinned() ? "yes" : "no"},
               {"tokens", HumanCount(state.token_count())},
               {"span tokens", HumanCount(state.span_token_count())},
               {"size", StoredLine(state)},
               {"lossy past", LossyPast(state)},
               {"labels", LabelList(state.labels())},
               {"created", AgeOf(state.create_time())},
               {"expires", state.has_expire_time() ? ExpiryOf(state.expire_time()) : "never"},
               {"pinned", state.pinned() ? "yes" : "no"},
               {"model", state.model_fingerprint()},
               {"numerics", state.numerics_profile()}},
              cli.streams.out);
  return absl::OkStatus();
}

absl::Status Plot(Cli& cli, const std::string& id, const std::string& svg_file) {
  ANABRANCH_ASSIGN_OR_RETURN(const v1::StateStats stats, cli.client().GetStateStats(id));
  if (!svg_file.empty()) return WriteFile(svg_file, PlotSvg(stats));
  if (cli.options.json) {
    PrintJson(ToJson(stats), cli.streams.out);
  } else {
    cli.streams.out << PlotText(stats, cli.streams.out_terminal);
  }
  return absl::OkStatus();
}

absl::Status Remove(Cli& cli, const std::vector<std::string>& ids) {
  for (const std::string& id : ids) {
    v1::DeleteStateRequest request;
    request.set_id(id);
    ANABRANCH_RETURN_IF_ERROR(cli.client().DeleteState(request));
    if (cli.options.json) {
      PrintJson({{"deleted", id}}, cli.streams.out);
    } else {
      cli.streams.err << "deleted " << id << std::endl;
    }
  }
  return absl::OkStatus();
}

}  // namespace

void AddStateCommands(CLI::App& app, Cli& cli) {
  CLI::App* group =
      app.add_subcommand("state",
                         "What was read, immutable: ls, show, log, expire, pin, label, rm; "
                         "recode, archive");
  group->require_subcommand(1);
  auto id = std::make_shared<std::string>();
  auto limit = std::make_shared<int64_t>(0);

  CLI::App* list = group->add_subcommand("ls", "List states, oldest first");
  list->add_option("-n,--limit", *limit, "At most this many")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40).description(""));
  auto model = std::make_shared<std::string>();
  list->add_option("--model", *model, "Only of this model")->type_name("NAME|FINGERPRINT");
  list->callback([&cli, model, limit] {
    cli.command = [model, limit](Cli& c) { return List(c, *model, *limit); };
  });

  CLI::App* show = group->add_subcommand("show", "Show one state");
  show->add_option("STATE", *id, "State or ref")->required();
  auto plot = std::make_shared<bool>(false);
  auto svg = std::make_shared<std::string>();
  show->add_flag("--plot", *plot, "Draw how large its tensors are, layer by layer, head by head");
  show->add_option("--svg", *svg, "Draw that into an SVG file")->type_name("FILE");
  show->callback([&cli, id, plot, svg] {
    cli.command = [id, plot, svg](Cli& c) {
      return *plot || !svg->empty() ? Plot(c, *id, *svg) : Show(c, *id);
    };
  });

  CLI::App* log = group->add_subcommand("log", "A state and its ancestors, newest first");
  log->add_option("STATE", *id, "State or ref")->required();
  log->add_option("-n,--limit", *limit, "At most this many")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40).description(""));
  log->callback(
      [&cli, id, limit] { cli.command = [id, limit](Cli& c) { return Log(c, *id, *limit); }; });

  auto ids = std::make_shared<std::vector<std::string>>();
  auto codec = std::make_shared<std::string>();
  CLI::App* recode = group->add_subcommand(
      "recode", "Keep states in another codec; to a more exact one their tokens are read again");
  recode->add_option("STATE", *ids, "States or refs")->required();
  recode->add_option("--codec", *codec, "exact, near (half the size) or compact (a quarter)")
      ->check(CLI::IsMember({"exact", "near", "compact", "archive"}))
      ->type_name("CODEC")
      ->required();
  recode->callback([&cli, ids, codec] {
    cli.command = [ids, codec](Cli& c) { return Recode(c, *ids, CodecOf(*codec)); };
  });
  CLI::App* archive = group->add_subcommand(
      "archive", "Keep of states their tokens alone; what needs more has them read again");
  archive->add_option("STATE", *ids, "States or refs")->required();
  archive->callback([&cli, ids] {
    cli.command = [ids](Cli& c) { return Recode(c, *ids, v1::STATE_CODEC_ARCHIVE); };
  });

  CLI::App* remove = group->add_subcommand("rm", "Delete states that nothing needs any more");
  remove->add_option("STATE", *ids, "States")->required();
  AddStateUpdateCommands(*group, cli);
  remove->callback([&cli, ids] { cli.command = [ids](Cli& c) { return Remove(c, *ids); }; });
}

}  // namespace anabranch::cli
