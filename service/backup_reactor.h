// Admin.CreateBackup: copies the library and tells how far it is.
#pragma once

#include <string>

#include "anabranch/v1/maintenance.pb.h"
#include "service/deadline_guard.h"
#include "service/service_context.h"
#include "service/stream_writer.h"
#include "statestore/backup.h"

namespace anabranch {

v1::Backup ToProto(const BackupInfo& info);

// The directory that a request means: below the server's backup root. FAILED_PRECONDITION
// (NO_BACKUP_ROOT) if it has none, INVALID_ARGUMENT for what is outside.
absl::StatusOr<std::string> BackupDirectory(const ServiceContext& service,
                                            const std::string& requested);

absl::Status HandleListBackups(const ServiceContext& service, const v1::ListBackupsRequest& request,
                               v1::ListBackupsResponse* response);

// Deletes itself in OnDone. `request` outlives it. One at a time: it keeps a worker busy.
class BackupReactor final
    : public StreamWriter<grpc::ServerWriteReactor<v1::BackupProgress>, v1::BackupProgress> {
 public:
  BackupReactor(ServiceContext* service, grpc::CallbackServerContext* context,
                const v1::CreateBackupRequest* request);

  void OnCancel() override { call_->cancel->Cancel(); }
  void OnDone() override { delete this; }

 private:
  // Of several messages that wait for a slow client the latest says it all.
  void Merge(v1::BackupProgress later, v1::BackupProgress* pending) override;
  // On the worker pool; ends the call.
  void Run();
  absl::StatusOr<v1::BackupProgress> BackUp();

  ServiceContext* const service_;
  const v1::CreateBackupRequest* const request_;
  CallPtr call_;
  DeadlineGuard guard_;
};

}  // namespace anabranch
