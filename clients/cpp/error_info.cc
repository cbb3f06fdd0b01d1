#include "clients/cpp/error_info.h"

#include <optional>

#include "absl/strings/cord.h"
#include "google/rpc/error_details.pb.h"

namespace anabranch {
namespace {

google::rpc::ErrorInfo Parse(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  absl::optional<absl::Cord> payload = status.GetPayload(kErrorInfoUrl);
  if (payload.has_value() && !info.ParseFromString(std::string(*payload))) info.Clear();
  return info;
}

}  // namespace

std::string ErrorReason(const absl::Status& status) { return Parse(status).reason(); }

std::map<std::string, std::string> ErrorMetadata(const absl::Status& status) {
  google::rpc::ErrorInfo info = Parse(status);
  return {info.metadata().begin(), info.metadata().end()};
}

}  // namespace anabranch
