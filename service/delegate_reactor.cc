#include "service/delegate_reactor.h"

#include <utility>

#include "service/delegation.h"
#include "service/error_info.h"
#include "service/model_router.h"
#include "service/status_mapping.h"

namespace anabranch {

DelegateReactor::DelegateReactor(ServiceContext* service, grpc::CallbackServerContext* context,
                                 const v1::DelegateRequest* request)
    : call_(service->calls->Begin("Delegate", TenantOf(*context),
                                  CappedDeadline(*context, service->limits.stream_deadline))),
      guard_(context, call_->deadline) {
  Delegation::Events events;
  events.send = [this](v1::DelegateResponse response) { Send(std::move(response)); };
  events.end = [this](absl::Status status, std::optional<v1::DelegateResponse> last) {
    call_->status = std::move(status);
    End(std::move(last), ToGrpcStatus(call_->status));
  };
  const auto start = [service, request, call = call_, events = std::move(events)] {
    ServiceContext* own = service->router->For(call->tenant, *request);
    std::make_shared<Delegation>(own, call, request, events)->Start();
  };
  if (!service->pool->TryRun(start)) {
    call_->status = ErrorWithReason(absl::StatusCode::kResourceExhausted, "SERVER_BUSY",
                                    "too many calls are waiting: retry later");
    End(std::nullopt, ToGrpcStatus(call_->status));
  }
}

// One delta a branch; results follow the deltas that they end.
void DelegateReactor::Merge(v1::DelegateResponse later, v1::DelegateResponse* pending) {
  for (v1::BranchDelta& delta : *later.mutable_deltas()) {
    v1::BranchDelta* into = nullptr;
    for (v1::BranchDelta& earlier : *pending->mutable_deltas()) {
      if (earlier.branch() == delta.branch()) into = &earlier;
    }
    if (into == nullptr) {
      *pending->add_deltas() = std::move(delta);
    } else {
      into->mutable_text()->append(delta.text());
      into->mutable_tokens()->MergeFrom(delta.tokens());
    }
  }
  for (v1::BranchResult& result : *later.mutable_results()) {
    *pending->add_results() = std::move(result);
  }
}

}  // namespace anabranch
