// `anabranch admin gc`: give the disk back what nothing needs.
#include <algorithm>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/format.h"
#include "clients/cli/interrupt.h"
#include "clients/cli/json_output.h"
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

// One line that is written over while it runs.
class PhaseLine {
 public:
  PhaseLine(std::ostream& err, bool enabled) : err_(err), enabled_(enabled) {}
  ~PhaseLine() {
    if (enabled_) err_ << "\r\x1b[K" << std::flush;
  }
  void Show(const v1::GarbageProgress& progress) {
    if (!enabled_ || progress.total() == 0) return;
    err_ << "\r\x1b[K" << Printable(progress.phase()) << "  "
         << 100 * progress.done() / progress.total() << " %" << std::flush;
  }

 private:
  std::ostream& err_;
  const bool enabled_;
};

void PrintReport(const v1::GarbageReport& report, std::ostream& out) {
  const bool dry = report.dry_run();
  const int64_t freed = report.disk_bytes_before() - report.disk_bytes_after();
  PrintFields(
      {{"scanned", absl::StrCat(HumanCount(report.keys_scanned()), " keys")},
       {"stale", absl::StrCat(HumanCount(report.stale_keys()),
                              dry ? " keys lead nowhere" : " keys removed")},
       {"orphans", absl::StrCat(HumanCount(report.orphaned_blocks()), " blocks, ",
                                HumanBytes(report.orphaned_bytes()))},
       {"unnamed", absl::StrCat(HumanCount(report.orphaned_payloads()), " payloads or parts, ",
                                HumanBytes(report.orphaned_payload_bytes()))},
       {"dead", dry ? absl::StrCat(HumanBytes(report.dead_bytes_before()), " in files of contents")
                    : absl::StrCat(HumanBytes(report.dead_bytes_before()), " before, ",
                                   HumanBytes(report.dead_bytes_after()), " now")},
       {"disk", dry ? HumanBytes(report.disk_bytes_before())
                    : absl::StrCat(HumanBytes(report.disk_bytes_before()), " before, ",
                                   HumanBytes(report.disk_bytes_after()), " now")},
       {"freed", dry ? "nothing: this was a dry run" : HumanBytes(std::max<int64_t>(freed, 0))}},
      out);
}

absl::Status Collect(Cli& cli, const v1::CollectGarbageRequest& request) {
  Cancellation cancel;
  InterruptScope interrupt(cancel);
  absl::StatusOr<v1::GarbageReport> report;
  {
    PhaseLine line(cli.streams.err, cli.streams.err_terminal && !cli.options.json);
    report = cli.client().CollectGarbage(
        request, [&](const v1::GarbageProgress& progress) { line.Show(progress); }, &cancel);
  }
  ANABRANCH_RETURN_IF_ERROR(report.status());
  if (cli.options.json) {
    PrintJson(ToJson(*report), cli.streams.out);
  } else {
    PrintReport(*report, cli.streams.out);
  }
  return absl::OkStatus();
}

}  // namespace

void AddGarbageCommand(CLI::App& admin, Cli& cli) {
  CLI::App* gc = admin.add_subcommand(
      "gc", "Give the disk back what deleted and expired states took, while the server serves");
  auto request = std::make_shared<v1::CollectGarbageRequest>();
  gc->add_flag_function(
      "--dry-run", [request](int64_t) { request->set_dry_run(true); },
      "Say what there is and change nothing");
  gc->add_flag_function(
      "--full", [request](int64_t) { request->set_full(true); },
      "Rewrite the files of contents even if little in them is dead");
  gc->callback(
      [&cli, request] { cli.command = [request](Cli& c) { return Collect(c, *request); }; });
}

}  // namespace anabranch::cli
