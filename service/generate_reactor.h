// Sessions.Generate: samples tokens in a session and streams them.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "anabranch/v1/sessions.pb.h"
#include "runtime/text_stream.h"
#include "service/deadline_guard.h"
#include "service/session_call.h"
#include "service/stream_writer.h"

namespace anabranch {

// Deletes itself in OnDone. `request` outlives it.
class GenerateReactor final
    : public StreamWriter<grpc::ServerWriteReactor<v1::GenerateResponse>, v1::GenerateResponse> {
 public:
  GenerateReactor(ServiceContext* service, grpc::CallbackServerContext* context,
                  const v1::GenerateRequest* request);

  void OnCancel() override { call_->cancel->Cancel(); }
  void OnDone() override { delete this; }

 private:
  void Merge(v1::GenerateResponse later, v1::GenerateResponse* pending) override;

  // Steps of the call, each on the worker pool.
  void Start();
  void ReadReplyPrefix();
  void Sample();
  void Complete();
  void Fail(absl::Status status);

  // Runs on the engine's thread: false stops after this token.
  bool OnToken(const GeneratedToken& token);
  v1::GenerateDelta DeltaOf(const GeneratedToken& token, std::string text) const;

  ServiceContext* service_;  // of the first model until Start
  const v1::GenerateRequest* const request_;
  CallPtr call_;
  DeadlineGuard guard_;
  std::shared_ptr<SessionCall> session_;
  GenerateWork work_;
  std::optional<TextStream> text_stream_;  // none without a tokenizer
  std::string text_;                       // all of it, written by OnToken, then by Complete
  FinishReason reason_ = FinishReason::kNone;
  v1::GenerateResponse answer_;
  bool opened_ = false;
};

}  // namespace anabranch
