#include "clients/cli/exit_code.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/error_info.h"

namespace anabranch::cli {
namespace {

constexpr absl::string_view kUsageUrl = "anabranch.cli/usage";

bool IsUsage(const absl::Status& status) { return status.GetPayload(kUsageUrl).has_value(); }

// A server that is draining says UNAVAILABLE too, but gives a reason.
bool IsUnreachable(const absl::Status& status) {
  return absl::IsUnavailable(status) && ErrorReason(status).empty();
}

}  // namespace

absl::Status UsageError(absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsageUrl, absl::Cord("1"));
  return status;
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  if (IsUsage(status)) return kExitUsage;
  if (IsUnreachable(status)) return kExitUnreachable;
  if (absl::IsCancelled(status)) return kExitInterrupted;
  return kExitServerError;
}

std::string ErrorLine(const absl::Status& status, absl::string_view address) {
  if (IsUsage(status)) return std::string(status.message());
  if (IsUnreachable(status)) {
    return absl::StrCat("no server answers at ", address,
                        ": start one with ./deploy/serve, or name another with --addr HOST:PORT "
                        "(or ANABRANCH_ADDR)");
  }
  if (absl::IsCancelled(status))
    return "interrupted; what was read and generated so far stays in the session";
  if (absl::IsDeadlineExceeded(status) && ErrorReason(status).empty()) {
    return absl::StrCat("no answer from ", address, " in time: give it longer with --timeout");
  }
  std::string line = absl::StrCat(status.message(), " (", absl::StatusCodeToString(status.code()));
  std::string reason = ErrorReason(status);
  if (!reason.empty()) absl::StrAppend(&line, ", ", reason);
  return absl::StrCat(line, ")");
}

Json ErrorJson(const absl::Status& status, absl::string_view address) {
  const bool from_server = !ErrorReason(status).empty();
  return {{"error",
           {{"code", absl::StatusCodeToString(status.code())},
            {"reason", ErrorReason(status)},
            {"message", from_server ? std::string(status.message()) : ErrorLine(status, address)},
            {"exit_code", ExitCode(status)}}}};
}

}  // namespace anabranch::cli
