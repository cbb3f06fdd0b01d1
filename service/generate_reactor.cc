#include "service/generate_reactor.h"

#include <utility>
#include <vector>

#include "service/error_info.h"
#include "service/generate_request.h"
#include "service/model_router.h"
#include "service/status_mapping.h"

namespace anabranch {

GenerateReactor::GenerateReactor(ServiceContext* service, grpc::CallbackServerContext* context,
                                 const v1::GenerateRequest* request)
    : service_(service),
      request_(request),
      call_(service->calls->Begin("Generate", TenantOf(*context),
                                  CappedDeadline(*context, service->limits.stream_deadline))),
      guard_(context, call_->deadline),
      session_(std::make_shared<SessionCall>(service, call_)) {
  if (!service_->pool->TryRun([this] { Start(); })) {
    Fail(ErrorWithReason(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                         "too many calls are waiting: retry later"));
  }
}

void GenerateReactor::Start() {
  absl::Status status = service_->calls->AdmitWork();
  if (!status.ok()) return Fail(std::move(status));
  service_ = service_->router->OfSession(call_->tenant, request_->session_id());
  session_ = std::make_shared<SessionCall>(service_, call_);
  v1::GenerateDone answered;
  const auto repeat = session_->Claim(request_->request_id(), &answered);
  if (!repeat.ok()) return Fail(repeat.status());
  if (*repeat) {
    *answer_.mutable_done() = std::move(answered);
    session_->Release();
    return End(answer_, grpc::Status::OK);
  }
  auto work = ParseGenerateRequest(*request_, *service_->model, service_->limits);
  if (!work.ok()) return Fail(work.status());
  work_ = *std::move(work);
  status = session_->Open(request_->session_id(), request_->expected_token_count());
  if (!status.ok()) return Fail(std::move(status));
  opened_ = true;
  session_->lease().journal().SetObserver([this] {
    if (!session_->lease().journal().error().ok()) call_->cancel->Cancel();
  });
  session_->Load([this](absl::Status loaded) {
    if (!loaded.ok()) return Fail(std::move(loaded));
    ReadReplyPrefix();
  });
}

void GenerateReactor::ReadReplyPrefix() {
  std::vector<int32_t> prefix;
  if (request_->reply()) prefix = service_->model->chat()->reply_prefix();
  if (session_->token_count() + prefix.size() == 0) {
    return Fail(ErrorWithReason(absl::StatusCode::kFailedPrecondition, "EMPTY_CONTEXT",
                                "the session has read nothing yet: append something first"));
  }
  absl::Status status = session_->CheckContext(prefix.size() + 1, "session_id");
  if (!status.ok()) return Fail(std::move(status));
  session_->Read(std::move(prefix), [this](absl::Status read) {
    if (!read.ok()) return Fail(std::move(read));
    Sample();
  });
}

void GenerateReactor::Sample() {
  if (const Tokenizer* tokenizer = service_->model->tokenizer()) {
    text_stream_.emplace(
        *tokenizer, std::vector<std::string>(request_->stop().begin(), request_->stop().end()));
  }
  work_.on_token = [this](const GeneratedToken& token) { return OnToken(token); };
  session_->Generate(std::move(work_), &reason_, [this](absl::Status status) {
    if (!status.ok()) return Fail(std::move(status));
    Complete();
  });
}

bool GenerateReactor::OnToken(const GeneratedToken& token) {
  TextStream::Delta delta;
  if (text_stream_) delta = text_stream_->Push(token.sampled.token);
  text_ += delta.text;
  v1::GenerateResponse response;
  *response.mutable_delta() = DeltaOf(token, std::move(delta.text));
  Send(std::move(response));
  return !delta.stopped;
}

v1::GenerateDelta GenerateReactor::DeltaOf(const GeneratedToken& token, std::string text) const {
  v1::GenerateDelta delta;
  delta.set_text(std::move(text));
  *delta.add_tokens() = ToTokenInfo(token.sampled, request_->logprobs(), *service_->model);
  delta.set_token_count(token.position + 1);
  delta.set_durable_token_count(session_->lease().journal().view().durable_token_count);
  return delta;
}

void GenerateReactor::Complete() {
  if (text_stream_) {
    const std::string rest = text_stream_->Finish();
    if (!rest.empty()) {
      v1::GenerateResponse response;
      const SessionView view = session_->lease().journal().view();
      response.mutable_delta()->set_text(rest);
      response.mutable_delta()->set_token_count(view.token_count);
      response.mutable_delta()->set_durable_token_count(view.durable_token_count);
      Send(std::move(response));
      text_ += rest;
    }
  }
  session_->Complete(
      !request_->no_checkpoint(),
      [this] {
        v1::GenerateDone* done = answer_.mutable_done();
        done->set_text(text_);
        done->set_finish_reason(ToProto(reason_));
        *done->mutable_session() = session_->session();
        *done->mutable_usage() = session_->usage();
        return done;
      },
      [this](absl::Status status) {
        if (!status.ok()) return Fail(std::move(status));
        session_->lease().journal().SetObserver(nullptr);
        session_->Release();
        End(answer_, grpc::Status::OK);
      });
}

void GenerateReactor::Merge(v1::GenerateResponse later, v1::GenerateResponse* pending) {
  v1::GenerateDelta* delta = later.mutable_delta();
  v1::GenerateDelta* into = pending->mutable_delta();
  into->mutable_text()->append(delta->text());
  for (v1::TokenInfo& token : *delta->mutable_tokens()) *into->add_tokens() = std::move(token);
  into->set_token_count(delta->token_count());
  into->set_durable_token_count(delta->durable_token_count());
}

void GenerateReactor::Fail(absl::Status status) {
  if (opened_) {
    const absl::Status write_error = session_->lease().journal().error();
    if (!write_error.ok()) status = write_error;
    session_->lease().journal().SetObserver(nullptr);
  }
  session_->Release();
  call_->status = status;
  End(std::nullopt, ToGrpcStatus(status));
}

}  // namespace anabranch
