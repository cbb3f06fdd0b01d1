// `anabranch diff`.
#include <algorithm>
#include <fstream>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/heat_map.h"
#include "clients/cli/json_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

struct Flags {
  std::string a, b, svg;
  bool plot = false;
};

// The part that differs most, by its index.
std::string MostDifferent(const v1::TensorDistance& tensor) {
  const auto most = std::max_element(tensor.relative_l2().begin(), tensor.relative_l2().end());
  if (most == tensor.relative_l2().end()) return "-";
  return absl::StrFormat("%d (%.3f)", most - tensor.relative_l2().begin(), *most);
}

void PrintTable(const v1::DiffResponse& diff, std::ostream& out) {
  Table table({"LAYER", "TENSOR", "RELATIVE L2", "COSINE", "NORM A", "NORM B", "PARTS", "MOST"},
              {.right_aligned = {0, 2, 3, 4, 5, 6}});
  for (const v1::TensorDistance& tensor : diff.tensors()) {
    const v1::Distance& whole = tensor.whole();
    std::string parts = absl::StrCat(tensor.relative_l2_size());
    if (tensor.heads_per_part() > 1) absl::StrAppend(&parts, " of ", tensor.heads_per_part());
    table.Add({absl::StrCat(tensor.layer()), tensor.kind(),
               absl::StrFormat("%.4f", whole.relative_l2()),
               absl::StrFormat("%.4f", whole.cosine()), absl::StrFormat("%.4g", whole.norm_a()),
               absl::StrFormat("%.4g", whole.norm_b()), parts, MostDifferent(tensor)});
  }
  table.Print(out);
}

HeatMap MapOf(const v1::DiffResponse& diff) {
  HeatMap map;
  map.title = "relative L2";
  for (const v1::TensorDistance& tensor : diff.tensors()) {
    const std::string kind = tensor.kind() == "recurrent" ? "" : absl::StrCat(" ", tensor.kind());
    map.rows.push_back({absl::StrCat(tensor.layer(), kind),
                        {tensor.relative_l2().begin(), tensor.relative_l2().end()}});
    for (double value : tensor.relative_l2()) map.high = std::max(map.high, value);
  }
  return map;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  return file ? absl::OkStatus() : UsageError(absl::StrCat("cannot write ", path));
}

absl::Status Diff(Cli& cli, const Flags& flags) {
  v1::DiffRequest request;
  request.set_id_a(flags.a);
  request.set_id_b(flags.b);
  ANABRANCH_ASSIGN_OR_RETURN(const v1::DiffResponse diff, cli.client().Diff(request));
  if (!flags.svg.empty()) ANABRANCH_RETURN_IF_ERROR(WriteFile(flags.svg, HeatMapSvg(MapOf(diff))));
  if (cli.options.json) {
    PrintJson(ToJson(diff), cli.streams.out);
    return absl::OkStatus();
  }
  PrintFields(
      {{"a", absl::StrCat(diff.a().id(), ", ", HumanCount(diff.a().token_count()), " tokens")},
       {"b", absl::StrCat(diff.b().id(), ", ", HumanCount(diff.b().token_count()), " tokens")},
       {"ancestor", diff.ancestor_id().empty() ? "-" : diff.ancestor_id()}},
      cli.streams.out);
  PrintTable(diff, cli.streams.out);
  if (flags.plot) {
    cli.streams.out << "\n" << HeatMapText(MapOf(diff), cli.streams.out_terminal);
  }
  return absl::OkStatus();
}

}  // namespace

void AddDiffCommand(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<Flags>();
  CLI::App* diff = app.add_subcommand("diff", "How far two states lie apart, per layer and head");
  diff->add_option("A", flags->a, "State or ref")->required();
  diff->add_option("B", flags->b, "State or ref")->required();
  diff->add_flag("--plot", flags->plot, "Draw a heat map too: a row a layer, a cell a head");
  diff->add_option("--svg", flags->svg, "Write the heat map to a file")->type_name("FILE");
  diff->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Diff(c, *flags); }; });
}

}  // namespace anabranch::cli
