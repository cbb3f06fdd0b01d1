// How the client makes a call: deadline, cancellation, repeats. Used inside the client library.
//
//   CallLimits limits = {.deadline = absl::Now() + absl::Seconds(30), .max_attempts = 4};
//   absl::StatusOr<v1::Session> session =
//       CallUnary(limits, *stub, &v1::Sessions::Stub::GetSession, request);
//
// Whether a call may be repeated is the caller's knowledge: it sets max_attempts to 1, or passes
// may_repeat, where a second attempt could apply the call twice.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <functional>

#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/cpp/cancellation.h"
#include "clients/cpp/grpc_status.h"

namespace anabranch {

// The limits of one call, over all its attempts.
struct CallLimits {
  absl::Time deadline;
  int max_attempts = 1;
  Cancellation* cancel = nullptr;
};

// Runs `attempt` until it succeeds, fails for good, or the limits are reached. It is repeated only
// after UNAVAILABLE and while `may_repeat` (if given) says so; waits double from 100 ms.
template <typename Result>
Result CallWithRepeats(const CallLimits& limits,
                       const std::function<Result(grpc::ClientContext&)>& attempt,
                       const std::function<bool()>& may_repeat = nullptr) {
  absl::Duration wait = absl::Milliseconds(100);
  absl::BitGen jitter;
  for (int tries = 1;; ++tries) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(limits.deadline));
    Cancellation::Scope scope(limits.cancel, [&context] { context.TryCancel(); });
    Result result = attempt(context);
    absl::Status status;
    if constexpr (std::is_same_v<Result, absl::Status>) {
      status = result;
    } else {
      status = result.status();
    }
    if (!absl::IsUnavailable(status) || tries >= limits.max_attempts) return result;
    if (may_repeat && !may_repeat()) return result;
    absl::Duration pause = wait * absl::Uniform(jitter, 0.8, 1.2);
    if (absl::Now() + pause >= limits.deadline) return result;
    if (limits.cancel == nullptr) {
      absl::SleepFor(pause);
    } else if (limits.cancel->WaitFor(pause)) {
      return absl::CancelledError("cancelled by the caller");
    }
    wait *= 2;
  }
}

// A unary call of a generated stub. Repeats are safe because unary calls read or carry a request
// id.
template <typename Stub, typename Request, typename Response>
absl::StatusOr<Response> CallUnary(const CallLimits& limits, Stub& stub,
                                   grpc::Status (Stub::*method)(grpc::ClientContext*,
                                                                const Request&, Response*),
                                   const Request& request) {
  return CallWithRepeats<absl::StatusOr<Response>>(
      limits, [&](grpc::ClientContext& context) -> absl::StatusOr<Response> {
        Response response;
        grpc::Status status = (stub.*method)(&context, request, &response);
        if (!status.ok()) return FromGrpcStatus(status);
        return response;
      });
}

}  // namespace anabranch
