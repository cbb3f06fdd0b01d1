// GetLog: which positions have a state, and so what every other position costs.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "service/error_info.h"
#include "service/library_handlers.h"
#include "service/log_entry.h"
#include "service/names.h"
#include "service/paging.h"
#include "service/proto_conversion.h"
#include "service/state_points.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

// Where a listing stands: what the next entry needs to know of the positions above it.
struct Cursor {
  std::string head;         // the listing starts here; empty: there is no state
  int64_t token_count = 0;  // of the source
  int64_t above = 0;        // the last position listed, or the source's end
  std::string lineage;      // the library's own token; empty: the first page
};

std::string ToToken(const Cursor& cursor) {
  return absl::StrCat(cursor.head, "~", cursor.token_count, "~", cursor.above, "~", cursor.lineage);
}

absl::StatusOr<Cursor> FromToken(const std::string& token) {
  const std::vector<std::string> parts = absl::StrSplit(token, absl::MaxSplits('~', 3));
  Cursor cursor;
  if (parts.size() != 4 || !IsStateId(parts[0]) ||
      !absl::SimpleAtoi(parts[1], &cursor.token_count) ||
      !absl::SimpleAtoi(parts[2], &cursor.above)) {
    return InvalidField("page_token", "is none that GetLog gave");
  }
  cursor.head = parts[0];
  cursor.lineage = parts[3];
  return cursor;
}

absl::StatusOr<Cursor> Start(const ServiceContext& service, const Call& call,
                             const v1::GetLogRequest& request) {
  if (!request.page_token().empty()) return FromToken(request.page_token());
  Cursor cursor;
  switch (request.source_case()) {
    case v1::GetLogRequest::kStateId: {
      ANABRANCH_ASSIGN_OR_RETURN(const StateRecord state,
                                 ResolveState(*service.store, call.tenant, request.state_id()));
      cursor.head = state.id;
      cursor.token_count = cursor.above = state.token_count;
      return cursor;
    }
    case v1::GetLogRequest::kSessionId: {
      ANABRANCH_RETURN_IF_ERROR(CheckName("session_id", request.session_id()));
      ANABRANCH_ASSIGN_OR_RETURN(const SessionView view,
                                 service.sessions->View(call.tenant, request.session_id()));
      cursor.head = view.record.head_state;
      cursor.token_count = cursor.above = view.token_count;
      return cursor;
    }
    case v1::GetLogRequest::SOURCE_NOT_SET:
      break;
  }
  return InvalidField("source", "one of state_id and session_id must be set");
}

// Adds the entries of one page of the lineage; true if the listing ends here.
absl::StatusOr<bool> AddEntries(const ServiceContext& service, const std::vector<StateRecord>& page,
                                Cursor* cursor, v1::GetLogResponse* response) {
  for (const StateRecord& state : page) {
    if (!IsWhole(state)) continue;
    v1::LogEntry* entry = response->add_entries();
    ANABRANCH_ASSIGN_OR_RETURN(*entry, MakeLogEntry(*service.store, state));
    entry->set_next_token_count(cursor->above);
    cursor->above = state.token_count;
    const int64_t limit = PastLimit(state);
    if (limit >= state.token_count) continue;
    // Inside a computed state there are no points. A swap goes on from its base, which comes next.
    if (state.operation == StateOperation::kSwap && limit > 0) {
      cursor->above = limit + 1;
      continue;
    }
    response->set_first_token_count(state.token_count);
    return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<v1::LogEntry> MakeLogEntry(StateStore& store, const StateRecord& state) {
  constexpr size_t kMaxNames = 100;
  v1::LogEntry entry;
  *entry.mutable_state() = ToProto(state);
  ANABRANCH_ASSIGN_OR_RETURN(const StateUsers users, store.GetUsers(state.tenant, state.id));
  for (size_t i = 0; i < std::min(users.refs.size(), kMaxNames); ++i) {
    entry.add_ref_names(users.refs[i]);
  }
  for (size_t i = 0; i < std::min(users.sessions.size(), kMaxNames); ++i) {
    entry.add_session_ids(users.sessions[i]);
  }
  entry.set_child_count(users.children.size());
  return entry;
}

absl::Status HandleGetLog(const ServiceContext& service, const Call& call,
                          const v1::GetLogRequest& request, v1::GetLogResponse* response) {
  ANABRANCH_ASSIGN_OR_RETURN(PageRequest page,
                             ParsePage(request.page_size(), request.page_token()));
  ANABRANCH_ASSIGN_OR_RETURN(Cursor cursor, Start(service, call, request));
  response->set_token_count(cursor.token_count);
  if (cursor.head.empty()) return absl::OkStatus();
  bool ended = false;
  // Pages of thinned states alone are not worth an answer.
  while (!ended && response->entries().empty()) {
    page.token = cursor.lineage;
    ANABRANCH_ASSIGN_OR_RETURN(const auto lineage,
                               service.store->GetLineage(call.tenant, cursor.head, page));
    ANABRANCH_ASSIGN_OR_RETURN(ended, AddEntries(service, lineage.items, &cursor, response));
    cursor.lineage = lineage.next;
    ended = ended || lineage.next.empty();
  }
  if (!ended) response->set_next_page_token(ToToken(cursor));
  return absl::OkStatus();
}

}  // namespace anabranch
