// The channel and stubs behind a Client; used inside the client library.
#pragma once

#include <memory>

#include "anabranch/v1/admin.grpc.pb.h"
#include "anabranch/v1/sessions.grpc.pb.h"
#include "anabranch/v1/states.grpc.pb.h"
#include "clients/cpp/call.h"
#include "clients/cpp/client.h"
#include "clients/cpp/request_id.h"

namespace anabranch {

// One channel, shared by the three stubs.
struct Client::Stubs {
  std::unique_ptr<v1::Sessions::Stub> sessions;
  std::unique_ptr<v1::States::Stub> states;
  std::unique_ptr<v1::Admin::Stub> admin;
};

// Limits of a call that does not run the model, and of one that does.
inline CallLimits QuickLimits(const ClientOptions& options) {
  return {.deadline = absl::Now() + options.timeout, .max_attempts = options.max_attempts};
}
inline CallLimits ModelLimits(const ClientOptions& options, Cancellation* cancel) {
  return {.deadline = absl::Now() + options.model_timeout,
          .max_attempts = options.max_attempts,
          .cancel = cancel};
}

template <typename Request>
void EnsureRequestId(Request& request) {
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
}

}  // namespace anabranch
