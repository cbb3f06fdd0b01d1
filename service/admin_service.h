// Admin as the API defines it: what the server is and how it is doing.
#pragma once

#include "anabranch/v1/admin.grpc.pb.h"
#include "service/service_context.h"

namespace anabranch {

class AdminService final : public v1::Admin::CallbackService {
 public:
  explicit AdminService(ServiceContext* service) : service_(service) {}

  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context,
                                      const v1::GetStatusRequest* request,
                                      v1::ServerStatus* response) override;
  // Copies of the library, and the check of all that it holds.
  grpc::ServerWriteReactor<v1::BackupProgress>* CreateBackup(
      grpc::CallbackServerContext* context, const v1::CreateBackupRequest* request) override;
  grpc::ServerUnaryReactor* ListBackups(grpc::CallbackServerContext* context,
                                        const v1::ListBackupsRequest* request,
                                        v1::ListBackupsResponse* response) override;
  grpc::ServerWriteReactor<v1::VerifyProgress>* Verify(grpc::CallbackServerContext* context,
                                                       const v1::VerifyRequest* request) override;
  // Gives the disk back what nothing needs.
  grpc::ServerWriteReactor<v1::GarbageProgress>* CollectGarbage(
      grpc::CallbackServerContext* context, const v1::CollectGarbageRequest* request) override;

 private:
  ServiceContext* const service_;  // outlives this
};

}  // namespace anabranch
