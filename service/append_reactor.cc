#include "service/append_reactor.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/model_router.h"
#include "service/status_mapping.h"
#include "statestore/base/status_macros.h"

namespace anabranch {

AppendReactor::AppendReactor(ServiceContext* service, grpc::CallbackServerContext* context)
    : service_(service),
      call_(service->calls->Begin("Append", TenantOf(*context),
                                  CappedDeadline(*context, service->limits.stream_deadline))),
      guard_(context, call_->deadline),
      session_(std::make_shared<SessionCall>(service, call_)) {
  StartRead(&request_);
}

void AppendReactor::OnReadDone(bool ok) {
  if (ok && opened_) {
    service_->pool->Run([this] { HandleRequest(); });
  } else if (ok) {
    if (!service_->pool->TryRun([this] { HandleRequest(); })) {
      Fail(ErrorWithReason(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                           "too many calls are waiting: retry later"));
    }
  } else {
    service_->pool->Run([this] { Complete(); });
  }
}

void AppendReactor::HandleRequest() {
  if (opened_) {
    if (!request_.session_id().empty() && request_.session_id() != session_id_) {
      return Fail(InvalidField("session_id", "must be empty or the same in later messages"));
    }
    return ReadContent();
  }
  absl::Status status = service_->calls->AdmitWork();
  if (!status.ok()) return Fail(std::move(status));
  service_ = service_->router->OfSession(call_->tenant, request_.session_id());
  session_ = std::make_shared<SessionCall>(service_, call_);
  v1::AppendDone answered;
  const auto repeat = session_->Claim(request_.request_id(), &answered);
  if (!repeat.ok()) return Fail(repeat.status());
  if (*repeat) {
    *answer_.mutable_done() = std::move(answered);
    session_->Release();
    return End(answer_, grpc::Status::OK);
  }
  status = OpenSession();
  if (!status.ok()) return Fail(std::move(status));
  session_->Load([this](absl::Status loaded) {
    if (!loaded.ok()) return Fail(std::move(loaded));
    ReadContent();
  });
}

absl::Status AppendReactor::OpenSession() {
  ANABRANCH_RETURN_IF_ERROR(session_->Open(request_.session_id(), request_.expected_token_count()));
  opened_ = true;
  session_id_ = request_.session_id();
  no_checkpoint_ = request_.no_checkpoint();
  start_ = session_->token_count();
  session_->lease().journal().SetObserver([this] { SendProgress(); });
  return absl::OkStatus();
}

void AppendReactor::ReadContent() {
  if (!request_.has_content()) return StartRead(&request_);
  auto tokens = service_->model->Encode(request_.content(), session_->tokens(),
                                        service_->limits.max_append_tokens, "content");
  if (!tokens.ok()) return Fail(tokens.status());
  const int64_t total = tokens_total_ + tokens->size();
  if (total > service_->limits.max_append_tokens) {
    return Fail(LimitExceeded("content tokens", total, service_->limits.max_append_tokens));
  }
  absl::Status status = session_->CheckContext(tokens->size(), "content");
  if (!status.ok()) return Fail(std::move(status));
  tokens_total_ = total;
  session_->Read(*std::move(tokens), [this](absl::Status read) {
    if (!read.ok()) return Fail(std::move(read));
    StartRead(&request_);
  });
}

void AppendReactor::Complete() {
  // A broken connection ends the reading side too: then nothing was asked to be completed.
  absl::Status interrupted = call_->Interrupted();
  if (!interrupted.ok()) return Fail(std::move(interrupted));
  if (!opened_) return Fail(InvalidField("session_id", "the first message must name a session"));
  session_->Complete(
      !no_checkpoint_,
      [this] {
        v1::AppendDone* done = answer_.mutable_done();
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

void AppendReactor::SendProgress() {
  const SessionJournal& journal = session_->lease().journal();
  if (!journal.error().ok()) return call_->cancel->Cancel();
  const SessionView view = journal.view();
  v1::AppendResponse response;
  v1::AppendProgress* progress = response.mutable_progress();
  progress->set_tokens_read(view.token_count - start_);
  progress->set_tokens_total(tokens_total_);
  progress->set_durable_token_count(view.durable_token_count);
  Send(std::move(response));
}

void AppendReactor::Merge(v1::AppendResponse later, v1::AppendResponse* pending) {
  *pending = std::move(later);
}

void AppendReactor::Fail(absl::Status status) {
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
