#include "clients/cli/source.h"

#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cli/exit_code.h"
#include "clients/cli/state_id.h"

namespace anabranch::cli {

namespace {

// A state by its id, else a session, else a ref. `call` sends a request with a source.
template <typename Request, typename Call>
auto Named(Request request, const std::string& source, Call call) -> decltype(call(request)) {
  if (LooksLikeStateId(source)) {
    request.set_state_id(source);
    return call(request);
  }
  request.set_session_id(source);
  auto by_session = call(request);
  if (!absl::IsNotFound(by_session.status())) return by_session;
  request.set_state_id(source);
  auto by_ref = call(request);
  if (!absl::IsNotFound(by_ref.status())) return by_ref;
  return absl::NotFoundError(absl::StrCat("there is no session and no ref named ", source));
}

}  // namespace

absl::StatusOr<PositionLog> LogOf(Client& client, const std::string& source) {
  return Named(v1::GetLogRequest(), source,
               [&](const v1::GetLogRequest& request) { return client.GetLog(request); });
}

absl::StatusOr<v1::GetGraphResponse> GraphOf(Client& client, const std::string& source,
                                             v1::GetGraphRequest request) {
  if (source.empty()) return client.GetGraph(request);
  return Named(std::move(request), source,
               [&](const v1::GetGraphRequest& named) { return client.GetGraph(named); });
}

absl::Status WriteFile(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  return file ? absl::OkStatus() : UsageError(absl::StrCat("cannot write ", path));
}

std::string BaseOf(const PositionLog& log, int64_t position) {
  for (const v1::LogEntry& entry : log.entries) {
    if (entry.state().token_count() <= position) return entry.state().id();
  }
  return "";
}

}  // namespace anabranch::cli
