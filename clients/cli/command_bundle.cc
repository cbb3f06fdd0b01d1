// `anabranch export` and `anabranch import`: states as files.
#include <fstream>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cli/commands.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/format.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/json_output.h"
#include "clients/cli/progress_bar.h"
#include "clients/cpp/bundle_file.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

constexpr char kExportFooter[] =
    "What arrives is kept in FILE.part; the same command goes on with it after an interruption.\n"
    "A session is exported by its ref: commit it first.";
constexpr char kImportFooter[] =
    "The same command goes on where it was after an interruption, within a day. Names that exist\n"
    "already are never moved, but for --ref.";

struct ExportFlags {
  std::string source, file;
  bool lineage = false, no_refs = false;
};

struct ImportFlags {
  std::string file, ref, expected;
  bool no_refs = false;
};

bool ShowsProgress(const Cli& cli) { return cli.streams.err_terminal && !cli.options.json; }

std::string StatesOf(const v1::BundleInfo& bundle) {
  return absl::StrCat(HumanCount(bundle.state_count()), ", ",
                      HumanCount(bundle.whole_state_count()), " of them with content");
}

absl::Status Export(Cli& cli, const ExportFlags& flags) {
  v1::ExportRequest request;
  request.set_id(flags.source);
  request.set_lineage(flags.lineage);
  request.set_skip_refs(flags.no_refs);
  Cancellation cancel;
  InterruptScope interrupt(cancel);
  absl::StatusOr<v1::BundleInfo> bundle;
  {
    ProgressBar bar(cli.streams.err, ShowsProgress(cli), "exporting", ProgressBar::kBytes);
    bundle = ExportToFile(
        cli.client(), request, flags.file,
        [&](int64_t done, int64_t total) { bar.Update(done, total); }, &cancel);
  }
  ANABRANCH_RETURN_IF_ERROR(bundle.status());
  if (cli.options.json) {
    PrintJson({{"file", flags.file}, {"bundle", ToJson(*bundle)}}, cli.streams.out);
    return absl::OkStatus();
  }
  PrintFields(
      {{"file", absl::StrCat(flags.file, ", ", HumanBytes(bundle->size_bytes()))},
       {"state", bundle->state_id()},
       {"states", StatesOf(*bundle)},
       {"refs", HumanCount(bundle->ref_count())},
       {"model", absl::StrCat(bundle->model_fingerprint(), ", ", bundle->numerics_profile())}},
      cli.streams.out);
  return absl::OkStatus();
}

absl::Status Import(Cli& cli, const ImportFlags& flags) {
  if (!std::ifstream(flags.file)) return UsageError(absl::StrCat("cannot open ", flags.file));
  v1::ImportStart start;
  start.set_ref(flags.ref);
  start.set_expected_ref_state_id(flags.expected);
  start.set_skip_refs(flags.no_refs);
  Cancellation cancel;
  InterruptScope interrupt(cancel);
  absl::StatusOr<v1::ImportResult> result;
  {
    ProgressBar bar(cli.streams.err, ShowsProgress(cli), "importing", ProgressBar::kBytes);
    result = ImportFromFile(
        cli.client(), start, flags.file,
        [&](int64_t done, int64_t total) { bar.Update(done, total); }, &cancel);
  }
  ANABRANCH_RETURN_IF_ERROR(result.status());
  if (cli.options.json) {
    PrintJson(ToJson(*result), cli.streams.out);
    return absl::OkStatus();
  }
  PrintFields(
      {{"state", result->state().id()},
       {"ref", result->has_ref() ? result->ref().name() : "-"},
       {"tokens", HumanCount(result->state().token_count())},
       {"states", absl::StrCat(HumanCount(result->states_added()), " added, ",
                               HumanCount(result->states_completed()), " completed, ",
                               HumanCount(result->states_unchanged()), " already here")},
       {"refs set", result->refs_set().empty() ? "-" : absl::StrJoin(result->refs_set(), ", ")}},
      cli.streams.out);
  for (const std::string& ref : result->refs_kept()) {
    cli.streams.err << "the ref " << ref << " exists here and names another state; it was not moved"
                    << std::endl;
  }
  return absl::OkStatus();
}

}  // namespace

void AddBundleCommands(CLI::App& app, Cli& cli) {
  auto flags = std::make_shared<ExportFlags>();
  CLI::App* save = app.add_subcommand("export", "Write a state to a file, for another server");
  save->footer(kExportFooter);
  save->add_option("REF", flags->source, "Ref or state")->required();
  save->add_option("-o,--output", flags->file, "File to write")->required()->type_name("FILE");
  save->add_flag("--lineage", flags->lineage,
                 "All ancestors with their contents: any of their positions can be gone back to "
                 "without reading again");
  save->add_flag("--no-refs", flags->no_refs, "Leave out the names that the states have");
  save->callback([&cli, flags] { cli.command = [flags](Cli& c) { return Export(c, *flags); }; });

  auto into = std::make_shared<ImportFlags>();
  CLI::App* load = app.add_subcommand("import", "Take in a file that export has written");
  load->footer(kImportFooter);
  load->add_option("FILE", into->file, "Bundle")->required();
  load->add_option("--ref", into->ref, "Ref to set to the bundle's state")->type_name("NAME");
  load->add_option("--expect", into->expected,
                   "Set it only if it is at this state now; - only if it does not exist")
      ->type_name("STATE");
  load->add_flag("--no-refs", into->no_refs, "Do not restore the names that the bundle brings");
  load->callback([&cli, into] { cli.command = [into](Cli& c) { return Import(c, *into); }; });
}

}  // namespace anabranch::cli
