// Runs a unary method on the worker pool: the gRPC callback returns at once, the handler may block
// or go on asynchronously, and calls `done` exactly once.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <utility>

#include "service/error_info.h"
#include "service/service_context.h"
#include "service/status_mapping.h"

namespace anabranch {

// Ends a call; runs on any thread.
using Done = std::function<void(absl::Status)>;

// kQuick: a short deadline cap; kModel: a longer one. kWork is refused while draining.
struct MethodTraits {
  const char* name;
  absl::Duration deadline_cap;
  bool work = false;
};

// One call; deletes itself when gRPC is done with it.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(ServiceContext* service, grpc::CallbackServerContext* context,
            const MethodTraits& method)
      : call_(service->calls->Begin(method.name, TenantOf(*context),
                                    CappedDeadline(*context, method.deadline_cap))) {}

  // Starts `handler(call, done)` on the pool, or refuses.
  template <typename Handler>
  void Start(ServiceContext* service, const MethodTraits& method,
             const google::protobuf::Message* response, Handler handler) {
    const Done done = [this, response](absl::Status status) {
      if (status.ok() && response->ByteSizeLong() > kMaxMessageBytes) {
        status = ErrorWithReason(absl::StatusCode::kResourceExhausted, "ANSWER_TOO_LARGE",
                                 "the answer is larger than a message may be: ask for less");
      }
      End(std::move(status));
    };
    if (method.work) {
      const absl::Status admitted = service->calls->AdmitWork();
      if (!admitted.ok()) return End(admitted);
    }
    const CallPtr call = call_;
    if (!service->pool->TryRun([handler, call, done] { handler(call, done); })) {
      End(ErrorWithReason(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                          "too many calls are waiting: retry later"));
    }
  }

  // The client left or its deadline passed: the engine stops within a step.
  void OnCancel() override { call_->cancel->Cancel(); }
  void OnDone() override { delete this; }

 private:
  // Exactly once; nothing may touch this object afterwards.
  void End(absl::Status status) {
    call_->status = std::move(status);
    Finish(ToGrpcStatus(call_->status));
  }

  CallPtr call_;
};

// `handler(call, done)`, where done(status) ends the call with `response` as filled by then.
template <typename Response, typename Handler>
grpc::ServerUnaryReactor* RunUnary(ServiceContext* service, grpc::CallbackServerContext* context,
                                   const MethodTraits& method, Response* response,
                                   Handler handler) {
  auto* reactor = new UnaryCall(service, context, method);
  reactor->Start(service, method, response, std::move(handler));
  return reactor;
}

// The same for handlers that are done when they return.
// `handler(call)` returns how the call ended.
template <typename Response, typename Handler>
grpc::ServerUnaryReactor* RunBlocking(ServiceContext* service, grpc::CallbackServerContext* context,
                                      const MethodTraits& method, Response* response,
                                      Handler handler) {
  return RunUnary(service, context, method, response,
                  [handler](const CallPtr& call, const Done& done) { done(handler(*call)); });
}

}  // namespace anabranch
