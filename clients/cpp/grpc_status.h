// Between gRPC's status and abseil's; used inside the client library.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace anabranch {

// Keeps code and message; the first google.rpc.ErrorInfo in the details becomes the payload that
// error_info.h reads.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace anabranch
