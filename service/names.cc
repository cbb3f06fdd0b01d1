#include "service/names.h"

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "service/error_info.h"
#include "service/limits.h"
#include "statestore/base/status_macros.h"
#include "statestore/names.h"

namespace anabranch {
namespace {

absl::Status NamesField(absl::string_view field, const absl::Status& status) {
  if (status.ok()) return status;
  return ErrorWithReason(status.code(), "INVALID_FIELD", status.message(),
                         {{"field", std::string(field)}});
}

}  // namespace

absl::Status CheckName(absl::string_view field, absl::string_view name) {
  return NamesField(field, ValidateName(field, name));
}

absl::Status CheckRequestId(absl::string_view request_id) {
  return NamesField("request_id", ValidateRequestId("request_id", request_id));
}

absl::StatusOr<Labels> ParseLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  if (labels.size() > kMaxLabels) return LimitExceeded("labels", labels.size(), kMaxLabels);
  Labels result;
  for (const auto& [key, value] : labels) {
    if (key.empty() || key.size() > kMaxLabelKeyBytes || value.size() > kMaxLabelValueBytes) {
      return InvalidField("labels",
                          absl::StrCat("a key must have 1 to ", kMaxLabelKeyBytes,
                                       " bytes and a value at most ", kMaxLabelValueBytes));
    }
    result[key] = value;
  }
  return result;
}

bool IsStateId(absl::string_view name) { return ValidateStateId("id", name).ok(); }

absl::Status CheckRefName(absl::string_view field, absl::string_view name) {
  ANABRANCH_RETURN_IF_ERROR(CheckName(field, name));
  return IsStateId(name) ? InvalidField(field, "must not look like a state id") : absl::OkStatus();
}

std::optional<std::string> ExpectedRefState(const std::string& expected) {
  if (expected.empty()) return std::nullopt;
  return expected == "-" ? std::string() : expected;
}

std::string RandomSessionId() {
  absl::BitGen random;
  return absl::StrCat("s-", absl::Hex(absl::Uniform<uint64_t>(random), absl::kZeroPad16));
}

}  // namespace anabranch
