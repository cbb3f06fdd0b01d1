// Sessions.Append: reads the client's messages one after the other into a session.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "anabranch/v1/sessions.pb.h"
#include "service/deadline_guard.h"
#include "service/session_call.h"
#include "service/stream_writer.h"

namespace anabranch {

// Deletes itself in OnDone.
class AppendReactor final
    : public StreamWriter<grpc::ServerBidiReactor<v1::AppendRequest, v1::AppendResponse>,
                          v1::AppendResponse> {
 public:
  AppendReactor(ServiceContext* service, grpc::CallbackServerContext* context);

  void OnReadDone(bool ok) override;
  void OnCancel() override { call_->cancel->Cancel(); }
  void OnDone() override { delete this; }

 private:
  void Merge(v1::AppendResponse later, v1::AppendResponse* pending) override;

  // Steps of the call, each on the worker pool. The next message is read when the one before is in
  // the session, so memory holds one message however fast the client sends.
  void HandleRequest();
  absl::Status OpenSession();
  void ReadContent();
  void Complete();

  void SendProgress();
  void Fail(absl::Status status);

  ServiceContext* service_;  // of the first model until the session is known
  CallPtr call_;
  DeadlineGuard guard_;
  std::shared_ptr<SessionCall> session_;
  v1::AppendRequest request_;
  v1::AppendResponse answer_;
  std::string session_id_;
  bool opened_ = false, no_checkpoint_ = false;
  int64_t start_ = 0;                      // tokens of the session before this call
  std::atomic<int64_t> tokens_total_ = 0;  // of the content received so far
};

}  // namespace anabranch
