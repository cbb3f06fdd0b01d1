#include "clients/cli/source.h"

#include "absl/strings/str_cat.h"
#include "clients/cli/state_id.h"

namespace anabranch::cli {

absl::StatusOr<PositionLog> LogOf(Client& client, const std::string& source) {
  v1::GetLogRequest request;
  if (LooksLikeStateId(source)) {
    request.set_state_id(source);
    return client.GetLog(request);
  }
  request.set_session_id(source);
  auto log = client.GetLog(request);
  if (!absl::IsNotFound(log.status())) return log;
  request.set_state_id(source);
  auto by_ref = client.GetLog(request);
  if (!absl::IsNotFound(by_ref.status())) return by_ref;
  return absl::NotFoundError(absl::StrCat("there is no session and no ref named ", source));
}

std::string BaseOf(const PositionLog& log, int64_t position) {
  for (const v1::LogEntry& entry : log.entries) {
    if (entry.state().token_count() <= position) return entry.state().id();
  }
  return "";
}

}  // namespace anabranch::cli
