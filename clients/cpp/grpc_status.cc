#include "clients/cpp/grpc_status.h"

#include "absl/strings/cord.h"
#include "clients/cpp/error_info.h"
#include "google/rpc/status.pb.h"

namespace anabranch {

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details())) return result;
  for (const google::protobuf::Any& detail : rich.details()) {
    if (detail.type_url() != kErrorInfoUrl) continue;
    result.SetPayload(kErrorInfoUrl, absl::Cord(detail.value()));
    break;
  }
  return result;
}

}  // namespace anabranch
