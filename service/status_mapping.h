// absl::Status to the wire. The codes are equal; the reason goes into the status details.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace anabranch {

// Details are a serialised google.rpc.Status with one google.rpc.ErrorInfo, as rich errors of other
// gRPC services are.
grpc::Status ToGrpcStatus(const absl::Status& status);

// "OK", "ABORTED": the name of a code, for metrics and logs.
const char* CodeName(absl::StatusCode code);

}  // namespace anabranch
