// Sessions.Delegate: streams what the branches of a delegation say.
#pragma once

#include <memory>

#include "anabranch/v1/sessions.pb.h"
#include "service/deadline_guard.h"
#include "service/service_context.h"
#include "service/stream_writer.h"

namespace anabranch {

// Deletes itself in OnDone. `request` outlives it.
class DelegateReactor final
    : public StreamWriter<grpc::ServerWriteReactor<v1::DelegateResponse>, v1::DelegateResponse> {
 public:
  DelegateReactor(ServiceContext* service, grpc::CallbackServerContext* context,
                  const v1::DelegateRequest* request);

  void OnCancel() override { call_->cancel->Cancel(); }
  void OnDone() override { delete this; }

 private:
  void Merge(v1::DelegateResponse later, v1::DelegateResponse* pending) override;

  CallPtr call_;
  DeadlineGuard guard_;
};

}  // namespace anabranch
