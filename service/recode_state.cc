#include "service/library_handlers.h"

namespace anabranch {

absl::Status HandleRecodeState(const ServiceContext& /*service*/, const Call& /*call*/,
                               const v1::RecodeStateRequest& /*request*/,
                               v1::RecodeStateResponse* /*response*/) {
  return absl::UnimplementedError("RecodeState is not built into this server");
}

}  // namespace anabranch
