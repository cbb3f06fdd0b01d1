// Admin.CollectGarbage: runs it and streams how far it is.
#pragma once

#include "anabranch/v1/admin.pb.h"
#include "service/deadline_guard.h"
#include "service/service_context.h"
#include "service/stream_writer.h"

namespace anabranch {

v1::GarbageReport ToProto(const GarbageReport& report);

// Deletes itself in OnDone. `request` outlives it.
class GarbageReactor final
    : public StreamWriter<grpc::ServerWriteReactor<v1::GarbageProgress>, v1::GarbageProgress> {
 public:
  GarbageReactor(ServiceContext* service, grpc::CallbackServerContext* context,
                 const v1::CollectGarbageRequest* request);

  void OnCancel() override { call_->cancel->Cancel(); }
  void OnDone() override { delete this; }

 private:
  void Merge(v1::GarbageProgress later, v1::GarbageProgress* pending) override {
    *pending = std::move(later);  // only how far it is now matters
  }
  void Run(Janitor* janitor, const GarbageOptions& options);

  CallPtr call_;
  DeadlineGuard guard_;
};

}  // namespace anabranch
