#include "service/error_info.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "statestore/retention.h"

namespace anabranch {
namespace {

constexpr char kPayloadUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";

void SetInfo(absl::Status& status, const google::rpc::ErrorInfo& info) {
  status.SetPayload(kPayloadUrl, absl::Cord(info.SerializeAsString()));
}

}  // namespace

absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view reason,
                             absl::string_view message, const ErrorMetadata& metadata) {
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kErrorDomain);
  for (const auto& [key, value] : metadata) (*info.mutable_metadata())[key] = value;
  absl::Status status(code, message);
  SetInfo(status, info);
  return status;
}

absl::Status InvalidField(absl::string_view field, absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "INVALID_FIELD",
                         absl::StrCat(field, ": ", what), {{"field", std::string(field)}});
}

absl::Status LimitExceeded(absl::string_view field, int64_t value, int64_t limit) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "LIMIT_EXCEEDED",
                         absl::StrCat(field, ": ", value, " is beyond the limit of ", limit),
                         {{"field", std::string(field)}, {"limit", absl::StrCat(limit)}});
}

google::rpc::ErrorInfo ErrorInfoOf(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  if (auto payload = status.GetPayload(kPayloadUrl)) {
    if (info.ParseFromString(std::string(*payload))) return info;
  }
  info.set_reason(absl::StatusCodeToString(status.code()));
  info.set_domain(kErrorDomain);
  return info;
}

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  if (status.ok() || status.GetPayload(kPayloadUrl)) return status;
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(kErrorDomain);
  SetInfo(status, info);
  return status;
}

absl::Status WriteError(const absl::Status& status) {
  if (const auto quota = status.GetPayload(kQuotaPayload)) {
    const std::vector<std::string> parts = absl::StrSplit(std::string(*quota), ' ');
    if (parts.size() == 3) {
      return ErrorWithReason(status.code(), "QUOTA_EXCEEDED", status.message(),
                             {{"quota", parts[0]}, {"used", parts[1]}, {"limit", parts[2]}});
    }
  }
  if (absl::IsUnavailable(status)) return WithReason(status, "LIBRARY_READ_ONLY");
  if (absl::IsResourceExhausted(status)) return WithReason(status, "LIBRARY_FULL");
  return status;
}

}  // namespace anabranch
