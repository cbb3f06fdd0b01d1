// The streaming calls of Client: Append, Generate, Delegate and CollectGarbage.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cpp/client.h"
#include "clients/cpp/client_stubs.h"

namespace anabranch {
namespace {

using AppendStream = grpc::ClientReaderWriter<v1::AppendRequest, v1::AppendResponse>;

absl::Status EndedEarly(absl::string_view call) {
  return absl::InternalError(absl::StrCat("the server ended ", call, " without its final answer"));
}

// Writes the first request and everything from `source`. A failed write means that the call has
// ended; its status says why. A source's error is returned.
absl::Status WriteAll(AppendStream& stream, const v1::AppendRequest& first,
                      const ContentSource& source) {
  if (!stream.Write(first)) return absl::OkStatus();
  while (source) {
    absl::StatusOr<std::optional<v1::Content>> content = source();
    if (!content.ok()) return content.status();
    if (!content->has_value()) break;
    v1::AppendRequest next;
    *next.mutable_content() = **std::move(content);
    if (!stream.Write(next)) return absl::OkStatus();
  }
  stream.WritesDone();
  return absl::OkStatus();
}

// One attempt. Reads progress on its own thread, so that neither side waits for the other.
absl::StatusOr<v1::AppendDone> AppendOnce(v1::Sessions::Stub& stub, grpc::ClientContext& context,
                                          const v1::AppendRequest& first,
                                          const ContentSource& source,
                                          const ProgressCallback& on_progress) {
  std::unique_ptr<AppendStream> stream = stub.Append(&context);
  std::optional<v1::AppendDone> done;
  std::thread reader([&] {
    v1::AppendResponse response;
    while (stream->Read(&response)) {
      if (response.has_progress() && on_progress) on_progress(response.progress());
      if (response.has_done()) done = std::move(*response.mutable_done());
    }
  });
  absl::Status written = WriteAll(*stream, first, source);
  if (!written.ok()) context.TryCancel();
  reader.join();
  absl::Status status = FromGrpcStatus(stream->Finish());
  if (!written.ok()) return written;
  if (!status.ok()) return status;
  if (!done.has_value()) return EndedEarly("Append");
  return *std::move(done);
}

absl::StatusOr<v1::GenerateDone> GenerateOnce(v1::Sessions::Stub& stub,
                                              grpc::ClientContext& context,
                                              const v1::GenerateRequest& request,
                                              const DeltaCallback& on_delta) {
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> stream =
      stub.Generate(&context, request);
  std::optional<v1::GenerateDone> done;
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
    if (response.has_delta() && on_delta) on_delta(response.delta());
    if (response.has_done()) done = std::move(*response.mutable_done());
  }
  absl::Status status = FromGrpcStatus(stream->Finish());
  if (!status.ok()) return status;
  if (!done.has_value()) return EndedEarly("Generate");
  return *std::move(done);
}

absl::StatusOr<v1::DelegateResponse> DelegateOnce(v1::Sessions::Stub& stub,
                                                  grpc::ClientContext& context,
                                                  const v1::DelegateRequest& request,
                                                  const DelegateCallback& on_event) {
  std::unique_ptr<grpc::ClientReader<v1::DelegateResponse>> stream =
      stub.Delegate(&context, request);
  v1::DelegateResponse all, event;
  while (stream->Read(&event)) {
    if (on_event && !event.has_done()) on_event(event);
    event.clear_deltas();
    all.MergeFrom(event);
  }
  absl::Status status = FromGrpcStatus(stream->Finish());
  if (!status.ok()) return status;
  if (!all.has_done()) return EndedEarly("Delegate");
  std::sort(
      all.mutable_results()->begin(), all.mutable_results()->end(),
      [](const v1::BranchResult& a, const v1::BranchResult& b) { return a.branch() < b.branch(); });
  return all;
}

absl::StatusOr<v1::GarbageReport> CollectOnce(v1::Admin::Stub& stub, grpc::ClientContext& context,
                                              const v1::CollectGarbageRequest& request,
                                              const GarbageCallback& on_progress) {
  std::unique_ptr<grpc::ClientReader<v1::GarbageProgress>> stream =
      stub.CollectGarbage(&context, request);
  v1::GarbageProgress progress;
  while (stream->Read(&progress)) {
    if (on_progress) on_progress(progress);
  }
  absl::Status status = FromGrpcStatus(stream->Finish());
  if (!status.ok()) return status;
  if (progress.phase() != "done") return EndedEarly("CollectGarbage");
  return std::move(*progress.mutable_report());
}

}  // namespace

absl::StatusOr<v1::AppendDone> Client::Append(v1::AppendRequest request,
                                              const ProgressCallback& on_progress,
                                              Cancellation* cancel) {
  EnsureRequestId(request);
  CallLimits limits = ModelLimits(options_, cancel);
  if (request.expected_token_count() == 0) limits.max_attempts = 1;
  return CallWithRepeats<absl::StatusOr<v1::AppendDone>>(limits, [&](grpc::ClientContext& context) {
    return AppendOnce(*stubs_->sessions, context, request, nullptr, on_progress);
  });
}

absl::StatusOr<v1::AppendDone> Client::AppendFrom(v1::AppendRequest request,
                                                  const ContentSource& source,
                                                  const ProgressCallback& on_progress,
                                                  Cancellation* cancel) {
  EnsureRequestId(request);
  CallLimits limits = ModelLimits(options_, cancel);
  limits.max_attempts = 1;  // what the source gave is gone
  return CallWithRepeats<absl::StatusOr<v1::AppendDone>>(limits, [&](grpc::ClientContext& context) {
    return AppendOnce(*stubs_->sessions, context, request, source, on_progress);
  });
}

absl::StatusOr<v1::GenerateDone> Client::Generate(v1::GenerateRequest request,
                                                  const DeltaCallback& on_delta,
                                                  Cancellation* cancel) {
  EnsureRequestId(request);
  CallLimits limits = ModelLimits(options_, cancel);
  if (request.expected_token_count() == 0) limits.max_attempts = 1;
  bool started = false;
  DeltaCallback watched = [&](const v1::GenerateDelta& delta) {
    started = true;
    if (on_delta) on_delta(delta);
  };
  return CallWithRepeats<absl::StatusOr<v1::GenerateDone>>(
      limits,
      [&](grpc::ClientContext& context) {
        return GenerateOnce(*stubs_->sessions, context, request, watched);
      },
      [&] { return !started; });
}

absl::StatusOr<v1::DelegateResponse> Client::Delegate(v1::DelegateRequest request,
                                                      const DelegateCallback& on_event,
                                                      Cancellation* cancel) {
  EnsureRequestId(request);
  bool started = false;
  DelegateCallback watched = [&](const v1::DelegateResponse& event) {
    started = true;
    if (on_event) on_event(event);
  };
  return CallWithRepeats<absl::StatusOr<v1::DelegateResponse>>(
      ModelLimits(options_, cancel),
      [&](grpc::ClientContext& context) {
        return DelegateOnce(*stubs_->sessions, context, request, watched);
      },
      [&] { return !started; });
}

absl::StatusOr<v1::GarbageReport> Client::CollectGarbage(const v1::CollectGarbageRequest& request,
                                                         const GarbageCallback& on_progress,
                                                         Cancellation* cancel) {
  CallLimits limits = ModelLimits(options_, cancel);
  // A large library takes as long as it takes.
  if (options_.model_timeout == ClientOptions().model_timeout) {
    limits.deadline = absl::Now() + kMaintenanceTimeout;
  }
  return CallWithRepeats<absl::StatusOr<v1::GarbageReport>>(
      limits, [&](grpc::ClientContext& context) {
        return CollectOnce(*stubs_->admin, context, request, on_progress);
      });
}

}  // namespace anabranch
