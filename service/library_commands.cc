#include "service/library_commands.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "statestore/backup.h"
#include "statestore/state_store.h"
#include "statestore/stopped_library.h"

namespace anabranch {
namespace {

constexpr uint64_t kStepBytes = 16u << 20;
constexpr int kFailed = 1, kDamaged = 2;

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "anabranchd: %s\n", std::string(status.message()).c_str());
  return absl::IsDataLoss(status) ? kDamaged : kFailed;
}

// One line that is written over, on a terminal only.
void ShowProgress(const std::string& line) {
  if (isatty(STDERR_FILENO) != 0) std::fprintf(stderr, "\r\033[K%s", line.c_str());
}

bool ShowBackupProgress(const BackupProgress& progress) {
  ShowProgress(progress.total == 0 || progress.done == 0
                   ? absl::StrCat(progress.phase, " ...")
                   : absl::StrFormat("%s %.1f of %.1f MiB", progress.phase,
                                     static_cast<double>(progress.done) / (1 << 20),
                                     static_cast<double>(progress.total) / (1 << 20)));
  return true;
}

std::string Describe(const BackupInfo& info) {
  return absl::StrFormat(
      "backup %d: commits up to %d, about %d states, %.1f MiB (%.1f new), %s", info.id,
      info.commit_seq, info.states, static_cast<double>(info.size_bytes) / (1 << 20),
      static_cast<double>(info.new_bytes) / (1 << 20),
      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", info.created, absl::UTCTimeZone()));
}

void Say(const std::string& line) {
  ShowProgress("");
  std::printf("%s\n", line.c_str());
}

int BackUp(const LibraryCommand& command) {
  StoreOptions options;
  options.directory = command.directory;
  options.create_if_missing = false;
  auto store = OpenStateStore(options);
  if (!store.ok()) return Fail(store.status());
  BackupRequest request;
  request.directory = command.backups;
  request.keep = command.keep;
  request.observer = ShowBackupProgress;
  const auto info = (*store)->Backup(request);
  if (!info.ok()) return Fail(info.status());
  Say(absl::StrCat(Describe(*info), ", verified"));
  return 0;
}

int Restore(const LibraryCommand& command) {
  const auto info =
      RestoreBackup(command.backups, command.id, command.directory, ShowBackupProgress);
  if (!info.ok()) return Fail(info.status());
  Say(absl::StrCat(Describe(*info), "\nrestored into ", command.directory,
                   "; serve it with --data ", command.directory));
  return 0;
}

int List(const LibraryCommand& command) {
  const auto backups = ListBackups(command.backups);
  if (!backups.ok()) return Fail(backups.status());
  for (const BackupInfo& info : *backups) {
    Say(info.problem.empty() ? Describe(info)
                             : absl::StrCat("backup ", info.id, ": UNUSABLE: ", info.problem));
  }
  if (backups->empty()) Say("no backups");
  return 0;
}

// A library's folder has a database in it, a folder of backups has their descriptions.
absl::StatusOr<std::unique_ptr<StoppedLibrary>> OpenAny(const LibraryCommand& command) {
  std::error_code error;
  const bool backups = std::filesystem::is_directory(command.directory + "/meta", error);
  if (!backups && command.id == 0) return StoppedLibrary::Open(command.directory);
  ShowProgress("comparing files with their checksums ...");
  const auto info = VerifyBackup(command.directory, command.id);
  if (!info.ok()) return info.status();
  Say(absl::StrCat(Describe(*info), ": its files are whole"));
  return StoppedLibrary::OpenBackup(command.directory, info->id);
}

int Verify(const LibraryCommand& command) {
  const auto library = OpenAny(command);
  if (!library.ok()) return Fail(library.status());
  int64_t states = 0, blocks = 0, findings = 0;
  uint64_t bytes = 0;
  std::string from;
  do {
    const auto step = (*library)->Next(from, kStepBytes);
    if (!step.ok()) return Fail(step.status());
    for (const DamagedPart& part : step->damaged) {
      ++findings;
      Say(absl::StrCat("DAMAGED ", part.kind, " ", part.name, ": ", part.problem,
                       part.states.empty() || part.kind == "state"
                           ? ""
                           : absl::StrCat(" (needed by ", absl::StrJoin(part.states, ", "), ")")));
    }
    states += step->states_checked;
    blocks += step->blobs_checked;
    bytes += step->bytes_checked;
    ShowProgress(absl::StrFormat("%d of about %d states, %.1f MiB", states,
                                 std::max(states, (*library)->states()),
                                 static_cast<double>(bytes) / (1 << 20)));
    from = step->next;
  } while (!from.empty());
  Say(absl::StrFormat("verified %d states and %d blocks, %.1f MiB, commits up to %d: %s", states,
                      blocks, static_cast<double>(bytes) / (1 << 20), (*library)->commit_seq(),
                      findings == 0 ? "all whole" : absl::StrCat(findings, " findings")));
  return findings == 0 ? 0 : kDamaged;
}

}  // namespace

int RunLibraryCommand(const LibraryCommand& command) {
  switch (command.action) {
    case LibraryCommand::Action::kBackup:
      return BackUp(command);
    case LibraryCommand::Action::kRestore:
      return Restore(command);
    case LibraryCommand::Action::kVerify:
      return Verify(command);
    case LibraryCommand::Action::kList:
      return List(command);
  }
  return kFailed;
}

}  // namespace anabranch
