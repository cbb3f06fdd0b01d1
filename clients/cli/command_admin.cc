// `anabranch admin ...`: what keeps a library safe.
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
#include "statestore/base/status_macros.h"

namespace anabranch::cli {
namespace {

constexpr char kVerifyFooter[] =
    "Exit code 1 if something is damaged and was not repaired. What is damaged is named, and\n"
    "everything else stays readable meanwhile.";

bool ShowsProgress(const Cli& cli) { return cli.streams.err_terminal && !cli.options.json; }

struct BackupFlags {
  std::string directory;
  int32_t keep = 0;
  int64_t rate = 0;
};

struct VerifyFlags {
  std::string state;
  bool repair = false;
  int64_t rate = 0;
};

absl::Status BackUp(Cli& cli, const BackupFlags& flags) {
  v1::CreateBackupRequest request;
  request.set_directory(flags.directory);
  request.set_keep(flags.keep);
  request.set_max_bytes_per_second(flags.rate);
  Cancellation cancel;
  InterruptScope interrupt(cancel);
  absl::StatusOr<v1::Backup> backup;
  {
    ProgressBar bar(cli.streams.err, ShowsProgress(cli), "copying", ProgressBar::kBytes);
    backup = cli.client().CreateBackup(
        request,
        [&](const v1::BackupProgress& progress) {
          bar.SetVerb(progress.phase());
          bar.Update(progress.bytes_done(), progress.bytes_total());
          if (cli.options.json && !progress.has_backup()) {
            PrintJson({{"type", "progress"}, {"progress", ToJson(progress)}}, cli.streams.out);
          }
        },
        &cancel);
  }
  ANABRANCH_RETURN_IF_ERROR(backup.status());
  if (cli.options.json) {
    PrintJson({{"type", "done"}, {"backup", ToJson(*backup)}}, cli.streams.out);
    return absl::OkStatus();
  }
  PrintFields({{"backup", absl::StrCat(backup->id(), ", read back")},
               {"commits", absl::StrCat("up to ", HumanCount(backup->commit_sequence()))},
               {"states", absl::StrCat("about ", HumanCount(backup->states()))},
               {"size", absl::StrCat(HumanBytes(backup->size_bytes()), ", ",
                                     HumanBytes(backup->new_bytes()), " of it new")}},
              cli.streams.out);
  return absl::OkStatus();
}

absl::Status List(Cli& cli, const std::string& directory) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<v1::Backup> backups,
                             cli.client().ListBackups(directory));
  if (cli.options.json) {
    for (const v1::Backup& backup : backups) PrintJson(ToJson(backup), cli.streams.out);
    return absl::OkStatus();
  }
  Table table({"BACKUP", "MADE", "COMMITS", "STATES", "SIZE", "NEW", "STATUS"},
              {.right_aligned = {0, 2, 3, 4, 5}});
  for (const v1::Backup& backup : backups) {
    table.Add({absl::StrCat(backup.id()), AgeOf(backup.create_time()),
               HumanCount(backup.commit_sequence()), HumanCount(backup.states()),
               HumanBytes(backup.size_bytes()), HumanBytes(backup.new_bytes()),
               backup.problem().empty() ? "complete"
                                        : absl::StrCat("UNUSABLE: ", Printable(backup.problem()))});
  }
  table.Print(cli.streams.out);
  return absl::OkStatus();
}

void PrintFinding(const v1::Finding& finding, std::ostream& out) {
  out << "DAMAGED " << finding.kind() << " " << Printable(finding.name()) << ": "
      << Printable(finding.problem());
  if (finding.kind() == "block" && !finding.state_ids().empty()) {
    out << " (needed by " << absl::StrJoin(finding.state_ids(), ", ") << ")";
  }
  if (finding.repaired()) out << ": REPAIRED";
  if (!finding.repair_problem().empty()) {
    out << ": not repaired: " << Printable(finding.repair_problem());
  }
  out << std::endl;
}

void PrintScrub(const v1::ScrubStatus& status, std::ostream& out) {
  PrintFields({{"states", HumanCount(status.states_checked())},
               {"blocks", HumanCount(status.blocks_checked())},
               {"records", HumanCount(status.records_checked())},
               {"read", HumanBytes(status.bytes_checked())},
               {"damaged", HumanCount(status.findings())},
               {"repaired", HumanCount(status.repaired())}},
              out);
}

absl::Status Verify(Cli& cli, const VerifyFlags& flags) {
  v1::VerifyRequest request;
  request.set_id(flags.state);
  request.set_repair(flags.repair);
  request.set_max_bytes_per_second(flags.rate);
  Cancellation cancel;
  InterruptScope interrupt(cancel);
  absl::StatusOr<v1::ScrubStatus> status;
  {
    ProgressBar bar(cli.streams.err, ShowsProgress(cli), "verifying", ProgressBar::kStates);
    status = cli.client().Verify(
        request,
        [&](const v1::VerifyProgress& progress) {
          if (cli.options.json) {
            PrintJson(
                {{"type", progress.done() ? "done" : "progress"}, {"progress", ToJson(progress)}},
                cli.streams.out);
            return;
          }
          for (const v1::Finding& finding : progress.findings()) {
            PrintFinding(finding, cli.streams.out);
          }
          bar.Update(progress.status().states_checked(), progress.states_total());
        },
        &cancel);
  }
  ANABRANCH_RETURN_IF_ERROR(status.status());
  if (!cli.options.json) PrintScrub(*status, cli.streams.out);
  const int64_t left = status->findings() - status->repaired();
  if (left == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      left, " damaged, see above", flags.repair ? "" : "; --repair reads their tokens again"));
}

void AddRate(CLI::App* command, int64_t& rate) {
  command->add_option("--rate", rate, "At most so many bytes a second, e.g. 20MiB; 0: no limit")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false))
      ->type_name("BYTES")
      ->default_str("0");
}

}  // namespace

void AddAdminCommands(CLI::App& app, Cli& cli) {
  CLI::App* admin =
      app.add_subcommand("admin", "Keep a library safe and small: back up, verify, repair, gc");
  admin->require_subcommand(1);
  AddGarbageCommand(*admin, cli);

  auto backup = std::make_shared<BackupFlags>();
  CLI::App* back_up =
      admin->add_subcommand("backup", "Copy the library while it is served; read the copy back");
  back_up->add_option("DIR", backup->directory,
                      "Folder on the server, inside its --backup-root (default: that folder)");
  back_up
      ->add_option("--keep", backup->keep, "Delete the oldest until so many are left; 0: keep all")
      ->check(CLI::Range(0, 1000).description(""));
  AddRate(back_up, backup->rate);
  back_up->callback(
      [&cli, backup] { cli.command = [backup](Cli& c) { return BackUp(c, *backup); }; });

  auto directory = std::make_shared<std::string>();
  CLI::App* list = admin->add_subcommand("backups", "List backups, the newest first");
  list->add_option("DIR", *directory, "Folder on the server, inside its --backup-root");
  list->callback(
      [&cli, directory] { cli.command = [directory](Cli& c) { return List(c, *directory); }; });

  auto check = std::make_shared<VerifyFlags>();
  CLI::App* verify =
      admin->add_subcommand("verify", "Read all that the library holds and name what is damaged");
  verify->footer(kVerifyFooter);
  verify->add_option("STATE", check->state, "Only this ref or state");
  verify->add_flag(
      "--repair", check->repair,
      "Rebuild damaged states by reading their tokens again, if the result is the same");
  AddRate(verify, check->rate);
  verify->callback([&cli, check] { cli.command = [check](Cli& c) { return Verify(c, *check); }; });
}

}  // namespace anabranch::cli
