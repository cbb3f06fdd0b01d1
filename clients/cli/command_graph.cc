// `anabranch graph [SOURCE]`: who goes on from whom, in the terminal or as a picture.
#include <fstream>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/graph_svg.h"
#include "clients/cli/graph_text.h"
#include "clients/cli/json_output.h"
#include "clients/cli/source.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct GraphFlags {
  std::string source;
  std::string output;
  bool ancestors = false;
  bool no_fold = false;
  int limit = 0;
};

absl::Status Graph(Cli& cli, const GraphFlags& flags) {
  v1::GetGraphRequest request;
  request.set_ancestors_only(flags.ancestors);
  request.set_max_states(flags.limit);
  ANABRANCH_ASSIGN_OR_RETURN(const v1::GetGraphResponse graph,
                             GraphOf(cli.client(), flags.source, request));
  if (graph.truncated()) {
    cli.streams.err << "only " << graph.entries_size() << " states are shown: see --limit"
                    << std::endl;
  }
  if (cli.options.json) {
    PrintJson(ToJson(graph), cli.streams.out);
    if (flags.output.empty()) return absl::OkStatus();
  }
  const GraphLayout layout = LayOut(graph, !flags.no_fold);
  if (flags.output.empty()) {
    if (layout.rows.empty()) cli.streams.err << "no states" << std::endl;
    cli.streams.out << GraphText(layout);
    return absl::OkStatus();
  }
  const std::string title =
      flags.source.empty() ? "All states" : absl::StrCat("States around ", flags.source);
  return WriteFile(flags.output, GraphSvg(layout, title));
}

}  // namespace

void AddGraphCommand(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<GraphFlags>();
  CLI::App* graph = app.add_subcommand("graph", "Draw which states go on from which");
  graph->add_option("SOURCE", flags->source, "Session, ref or state (default: all states)");
  graph->add_option("-o,--output", flags->output, "Write an SVG file instead")->type_name("FILE");
  graph->add_flag("--ancestors", flags->ancestors, "Only what SOURCE goes on from");
  graph->add_flag("--no-fold", flags->no_fold, "Show every state of a long line");
  graph->add_option("-n,--limit", flags->limit, "At most this many states (default: 1000)")
      ->check(CLI::Range(1, 5000).description(""));
  graph->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Graph(c, *flags); }; });
}

}  // namespace anabranch::cli
