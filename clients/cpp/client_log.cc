#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cpp/client.h"
#include "clients/cpp/client_stubs.h"

namespace anabranch {

std::optional<int64_t> PositionLog::ReplayTo(int64_t position) const {
  if (position < first_token_count || position > token_count) return std::nullopt;
  for (const v1::LogEntry& entry : entries) {
    if (entry.state().token_count() > position) continue;
    if (position >= entry.next_token_count() && position != token_count) return std::nullopt;
    return position - entry.state().token_count();
  }
  return position;
}

absl::StatusOr<PositionLog> Client::GetLog(v1::GetLogRequest request) {
  constexpr int kPageSize = 1000;
  PositionLog log;
  request.set_page_size(kPageSize);
  while (true) {
    auto page =
        CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::GetLog, request);
    if (!page.ok()) return page.status();
    for (v1::LogEntry& entry : *page->mutable_entries()) log.entries.push_back(std::move(entry));
    log.token_count = page->token_count();
    log.first_token_count = page->first_token_count();
    if (page->next_page_token().empty()) return log;
    request.set_page_token(page->next_page_token());
  }
}

absl::StatusOr<v1::GetGraphResponse> Client::GetGraph(const v1::GetGraphRequest& request) {
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::GetGraph, request);
}

absl::StatusOr<v1::StateStats> Client::GetStateStats(const std::string& id_or_ref) {
  v1::GetStateStatsRequest request;
  request.set_id(id_or_ref);
  return CallUnary(QuickLimits(options_), *stubs_->states, &v1::States::Stub::GetStateStats,
                   request);
}

absl::StatusOr<v1::Session> Client::UpdateSession(v1::UpdateSessionRequest request) {
  EnsureRequestId(request);
  return CallUnary(QuickLimits(options_), *stubs_->sessions, &v1::Sessions::Stub::UpdateSession,
                   request);
}

absl::StatusOr<EditResult> Client::EditSession(const std::string& id, int64_t token_count,
                                               const v1::Content& content) {
  EditResult result;
  auto session = GetSession(id);
  if (!session.ok()) return session.status();
  v1::RewindRequest rewind;
  rewind.set_session_id(id);
  rewind.set_token_count(token_count);
  rewind.set_expected_token_count(session->token_count());
  rewind.set_dry_run(true);  // what cannot work fails before anything is marked
  if (auto plan = Rewind(rewind); !plan.ok()) return plan.status();
  v1::CommitRequest mark;
  mark.set_session_id(id);
  mark.set_mark(absl::StrCat("before-edit-", session->token_count()));
  auto before = Commit(mark);
  if (!before.ok()) return before.status();
  result.before = before->ref();
  rewind.set_dry_run(false);
  auto rewound = Rewind(rewind);
  if (!rewound.ok()) return rewound.status();
  result.rewind = *std::move(rewound);
  v1::AppendRequest append;
  append.set_session_id(id);
  append.set_expected_token_count(token_count);
  *append.mutable_content() = content;
  auto appended = Append(append);
  if (!appended.ok()) {
    return absl::Status(appended.status().code(),
                        absl::StrCat(appended.status().message(), "; the session stands at token ",
                                     token_count, ", the old line is ", result.before.name()));
  }
  result.append = *std::move(appended);
  return result;
}

}  // namespace anabranch
