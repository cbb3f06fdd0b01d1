#include "service/backup_reactor.h"

#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/logging.h"
#include "service/paging.h"
#include "service/proto_conversion.h"
#include "service/status_mapping.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxKeep = 1000;

absl::Status WithBackupReason(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return WithReason(status, "BACKUP_NOT_FOUND");
    case absl::StatusCode::kFailedPrecondition:
      return WithReason(status, "BACKUP_DIRECTORY_UNUSABLE");
    case absl::StatusCode::kResourceExhausted:
      return WithReason(status, "DISK_FULL");
    case absl::StatusCode::kDataLoss:
      return WithReason(status, "BACKUP_DAMAGED");
    default:
      return status;
  }
}

}  // namespace

v1::Backup ToProto(const BackupInfo& info) {
  v1::Backup backup;
  backup.set_id(info.id);
  *backup.mutable_create_time() = ToProto(info.created);
  backup.set_commit_sequence(static_cast<int64_t>(info.commit_seq));
  backup.set_size_bytes(static_cast<int64_t>(info.size_bytes));
  backup.set_new_bytes(static_cast<int64_t>(info.new_bytes));
  backup.set_states(info.states);
  backup.set_problem(info.problem);
  return backup;
}

absl::StatusOr<std::string> BackupDirectory(const ServiceContext& service,
                                            const std::string& requested) {
  if (service.backup_root.empty()) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NO_BACKUP_ROOT",
                           "this server makes no backups: start it with --backup-root DIR, best on "
                           "another disk than the library");
  }
  std::error_code error;
  const fs::path root = fs::weakly_canonical(service.backup_root, error);
  const fs::path path = error ? root : fs::weakly_canonical(root / requested, error);
  const std::string inside = root.string() + "/";
  if (!error && (path == root || absl::StartsWith(path.string(), inside))) return path.string();
  return InvalidField("directory",
                      absl::StrCat("must be inside the server's --backup-root ", root.string()));
}

absl::Status HandleListBackups(const ServiceContext& service, const v1::ListBackupsRequest& request,
                               v1::ListBackupsResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(const PageRequest page,
                             ParsePage(request.page_size(), request.page_token()));
  int64_t before = std::numeric_limits<int64_t>::max();
  if (!page.token.empty() && !absl::SimpleAtoi(page.token, &before)) {
    return InvalidField("page_token", "is not one of this listing");
  }
  ANABRANCH_ASSIGN_OR_RETURN(const std::string directory,
                             BackupDirectory(service, request.directory()));
  const auto backups = ListBackups(directory);
  if (!backups.ok()) return WithBackupReason(backups.status());
  for (const BackupInfo& each : *backups) {
    if (each.id >= before) continue;
    if (response->backups_size() == page.size) {
      response->set_next_page_token(absl::StrCat(each.id + 1));
      break;
    }
    *response->add_backups() = ToProto(each);
  }
  return absl::OkStatus();
}

BackupReactor::BackupReactor(ServiceContext* service, grpc::CallbackServerContext* context,
                             const v1::CreateBackupRequest* request)
    : service_(service),
      request_(request),
      call_(service->calls->Begin("CreateBackup", TenantOf(*context),
                                  CappedDeadline(*context, service->limits.maintenance_deadline))),
      guard_(context, call_->deadline) {
  if (service_->pool->TryRun([this] { Run(); })) return;
  call_->status = ErrorWithReason(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                                  "too many calls are waiting: retry later");
  End(std::nullopt, ToGrpcStatus(call_->status));
}

void BackupReactor::Run() {
  absl::StatusOr<v1::BackupProgress> last = BackUp();
  call_->status = WithBackupReason(last.status());
  if (!last.ok()) return End(std::nullopt, ToGrpcStatus(call_->status));
  End(*std::move(last), grpc::Status::OK);
}

absl::StatusOr<v1::BackupProgress> BackupReactor::BackUp() {
  ANABRANCH_RETURN_IF_ERROR(service_->calls->AdmitWork());
  if (request_->keep() < 0 || request_->keep() > kMaxKeep) {
    return InvalidField("keep", absl::StrCat("must be 0 to ", kMaxKeep));
  }
  if (request_->max_bytes_per_second() < 0) {
    return InvalidField("max_bytes_per_second", "must not be negative");
  }
  BackupRequest backup;
  ANABRANCH_ASSIGN_OR_RETURN(backup.directory, BackupDirectory(*service_, request_->directory()));
  backup.keep = request_->keep();
  backup.max_bytes_per_second = static_cast<uint64_t>(request_->max_bytes_per_second());
  backup.observer = [this](const BackupProgress& progress) {
    v1::BackupProgress message;
    message.set_phase(progress.phase);
    message.set_bytes_done(static_cast<int64_t>(progress.done));
    message.set_bytes_total(static_cast<int64_t>(progress.total));
    Send(std::move(message));
    return call_->Interrupted().ok() && !service_->calls->draining();
  };
  if (service_->backup_running->exchange(true)) {
    return ErrorWithReason(absl::StatusCode::kAborted, "BACKUP_RUNNING",
                           "another backup is being made: wait for its end");
  }
  const absl::Cleanup done = [this] { service_->backup_running->store(false); };
  absl::StatusOr<BackupInfo> info = service_->store->Backup(backup);
  if (absl::IsCancelled(info.status())) {
    ANABRANCH_RETURN_IF_ERROR(call_->Interrupted());
    return service_->calls->AdmitWork();
  }
  ANABRANCH_RETURN_IF_ERROR(info.status());
  LogEvent(LogLevel::kInfo, "backup",
           {{"directory", backup.directory},
            {"id", info->id},
            {"commit_sequence", static_cast<int64_t>(info->commit_seq)},
            {"new_bytes", static_cast<int64_t>(info->new_bytes)}});
  v1::BackupProgress last;
  last.set_phase("verifying");
  last.set_bytes_done(static_cast<int64_t>(info->size_bytes));
  last.set_bytes_total(static_cast<int64_t>(info->size_bytes));
  *last.mutable_backup() = ToProto(*info);
  return last;
}

void BackupReactor::Merge(v1::BackupProgress later, v1::BackupProgress* pending) {
  *pending = std::move(later);
}

}  // namespace anabranch
