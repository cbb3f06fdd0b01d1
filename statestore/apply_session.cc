// Refs, sessions with their logs, and answers.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "statestore/apply_mutation.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"

namespace anabranch {
namespace {

// nullopt instead of NOT_FOUND.
template <typename T>
absl::StatusOr<std::optional<T>> IfExists(absl::StatusOr<T> value) {
  if (value.ok()) return std::optional<T>(*std::move(value));
  if (absl::IsNotFound(value.status())) return std::optional<T>();
  return value.status();
}

absl::Status CheckExpected(const SetRef& operation, const std::optional<RefRecord>& stored) {
  if (!operation.expected_state.has_value()) return absl::OkStatus();
  const std::string actual = stored.has_value() ? stored->state_id : "";
  if (actual == *operation.expected_state) return absl::OkStatus();
  const auto describe = [](const std::string& id) { return id.empty() ? "no state" : id; };
  return absl::AbortedError(absl::StrCat("ref ", operation.name, " names ", describe(actual),
                                         ", not ", describe(*operation.expected_state)));
}

void PutLogBounds(absl::string_view tenant, absl::string_view session, const LogBounds& bounds,
                  ApplyContext& context) {
  const std::string key = LogBoundsKey(tenant, session);
  context.changes.Put(Family::kLog, key, EncodeLogBounds(key, bounds));
}

void PutLogChunk(absl::string_view tenant, absl::string_view session, int64_t position,
                 absl::Span<const int32_t> tokens, ApplyContext& context) {
  const std::string key = LogChunkKey(tenant, session, position);
  context.changes.Put(Family::kLog, key, EncodeTokens(key, tokens));
}

// Removes the chunks that start before `position`; what one of them holds from there on is kept.
absl::Status DropLogBefore(const TrimLog& operation, ApplyContext& context) {
  const std::string prefix = LogChunkPrefix(operation.tenant, operation.session);
  std::vector<std::pair<std::string, std::string>> before;
  const std::string limit = LogChunkKey(operation.tenant, operation.session, operation.position);
  ANABRANCH_RETURN_IF_ERROR(context.changes.Scan(
      Family::kLog, prefix, "", [&](absl::string_view key, absl::string_view value) {
        if (key >= limit) return false;
        before.emplace_back(key, value);
        return true;
      }));
  for (const auto& [key, value] : before) context.changes.Delete(Family::kLog, key);
  if (before.empty()) return absl::OkStatus();
  // Only the last of them can reach past `position`.
  const auto& [key, value] = before.back();
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t start, PositionOfLogChunkKey(prefix, key));
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, DecodeTokens(key, value));
  const int64_t dropped = operation.position - start;
  if (dropped < static_cast<int64_t>(tokens.size())) {
    PutLogChunk(operation.tenant, operation.session, operation.position,
                absl::MakeConstSpan(tokens).subspan(dropped), context);
  }
  return absl::OkStatus();
}

absl::Status CheckHead(const SessionRecord& record, const ApplyContext& context) {
  if (record.head_state.empty()) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StoredState head,
                             ReadState(context.changes, record.tenant, record.head_state));
  ANABRANCH_RETURN_IF_ERROR(CheckUsable(head.record));
  if (head.record.token_count == record.head_position) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("record.head_position is ", record.head_position,
                                                 "; state ", record.head_state, " has ",
                                                 head.record.token_count, " tokens"));
}

std::string HeadEdge(const SessionRecord& record) {
  return EdgeKey(record.tenant, Edge::kSession, record.head_state, record.id);
}

}  // namespace

absl::Status Apply(const SetRef& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<RefRecord> stored,
                             IfExists(ReadRef(context.changes, operation.tenant, operation.name)));
  ANABRANCH_RETURN_IF_ERROR(CheckExpected(operation, stored));
  ANABRANCH_ASSIGN_OR_RETURN(const StoredState state,
                             ReadState(context.changes, operation.tenant, operation.state_id));
  ANABRANCH_RETURN_IF_ERROR(CheckUsable(state.record));
  if (stored.has_value()) {
    context.changes.Delete(Family::kEdges,
                           EdgeKey(operation.tenant, Edge::kRef, stored->state_id, operation.name));
  }
  RefRecord ref;
  ref.state_id = operation.state_id;
  ref.updated = context.now;
  ref.etag = context.NewEtag();
  const std::string key = NamedKey(operation.tenant, operation.name);
  context.changes.Put(Family::kRefs, key, EncodeRef(key, ref));
  context.changes.Put(Family::kEdges,
                      EdgeKey(operation.tenant, Edge::kRef, operation.state_id, operation.name),
                      "");
  return absl::OkStatus();
}

absl::Status Apply(const DeleteRef& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(const RefRecord ref,
                             ReadRef(context.changes, operation.tenant, operation.name));
  context.changes.Delete(Family::kRefs, NamedKey(operation.tenant, operation.name));
  context.changes.Delete(Family::kEdges,
                         EdgeKey(operation.tenant, Edge::kRef, ref.state_id, operation.name));
  return absl::OkStatus();
}

absl::Status Apply(const PutSession& operation, ApplyContext& context) {
  SessionRecord record = operation.record;
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<SessionRecord> stored,
                             IfExists(ReadSession(context.changes, record.tenant, record.id)));
  if (stored.has_value() && operation.must_not_exist) {
    return absl::AlreadyExistsError(absl::StrCat("there is a session ", record.id, " already"));
  }
  ANABRANCH_RETURN_IF_ERROR(CheckHead(record, context));
  if (stored.has_value() && !stored->head_state.empty()) {
    context.changes.Delete(Family::kEdges, HeadEdge(*stored));
  }
  if (!record.head_state.empty()) context.changes.Put(Family::kEdges, HeadEdge(record), "");
  if (record.created == absl::UnixEpoch()) {
    record.created = stored.has_value() ? stored->created : context.now;
  }
  record.updated = context.now;
  const std::string key = NamedKey(record.tenant, record.id);
  context.changes.Put(Family::kSessions, key, EncodeSession(key, record));
  if (!stored.has_value()) {
    PutLogBounds(record.tenant, record.id, {record.head_position, record.head_position}, context);
  }
  return absl::OkStatus();
}

absl::Status Apply(const DeleteSession& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(const SessionRecord record,
                             ReadSession(context.changes, operation.tenant, operation.id));
  context.changes.Delete(Family::kSessions, NamedKey(operation.tenant, operation.id));
  if (!record.head_state.empty()) context.changes.Delete(Family::kEdges, HeadEdge(record));
  std::vector<std::string> keys = {LogBoundsKey(operation.tenant, operation.id)};
  ANABRANCH_RETURN_IF_ERROR(context.changes.Scan(Family::kLog,
                                                 LogChunkPrefix(operation.tenant, operation.id), "",
                                                 [&](absl::string_view key, absl::string_view) {
                                                   keys.emplace_back(key);
                                                   return true;
                                                 }));
  for (std::string& key : keys) context.changes.Delete(Family::kLog, std::move(key));
  return absl::OkStatus();
}

absl::Status Apply(const AppendLog& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(LogBounds bounds,
                             ReadLogBounds(context.changes, operation.tenant, operation.session));
  if (operation.position != bounds.end) {
    return absl::FailedPreconditionError(
        absl::StrCat("the log of session ", operation.session, " ends at ", bounds.end,
                     "; tokens for position ", operation.position, " do not continue it"));
  }
  if (operation.tokens.empty()) return absl::OkStatus();
  PutLogChunk(operation.tenant, operation.session, bounds.end, operation.tokens, context);
  bounds.end += static_cast<int64_t>(operation.tokens.size());
  PutLogBounds(operation.tenant, operation.session, bounds, context);
  return absl::OkStatus();
}

// Past its end a log may be trimmed only up to the head state, which covers what was not logged.
absl::Status Apply(const TrimLog& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(LogBounds bounds,
                             ReadLogBounds(context.changes, operation.tenant, operation.session));
  if (operation.position <= bounds.start) return absl::OkStatus();
  if (operation.position > bounds.end) {
    ANABRANCH_ASSIGN_OR_RETURN(const SessionRecord record,
                               ReadSession(context.changes, operation.tenant, operation.session));
    if (operation.position > record.head_position) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the log of session ", operation.session, " ends at ", bounds.end, " and its head at ",
          record.head_position, "; it cannot be trimmed to ", operation.position));
    }
  }
  ANABRANCH_RETURN_IF_ERROR(DropLogBefore(operation, context));
  bounds = {operation.position, std::max(bounds.end, operation.position)};
  PutLogBounds(operation.tenant, operation.session, bounds, context);
  return absl::OkStatus();
}

absl::Status Apply(const PutAnswer& operation, ApplyContext& context) {
  const std::string key = NamedKey(operation.tenant, operation.request_id);
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<std::string> stored,
                             context.changes.Get(Family::kAnswers, key));
  if (stored.has_value()) {
    const absl::StatusOr<StoredAnswer> answer = DecodeAnswer(key, *stored);
    if (answer.ok() && context.now - answer->answered < kAnswerLifetime) {
      return absl::AlreadyExistsError(
          absl::StrCat("the request ", operation.request_id, " was answered already"));
    }
    if (answer.ok()) {
      context.changes.Delete(Family::kAnswers,
                             AnswerTimeKey(absl::ToUnixNanos(answer->answered), key));
    }
  }
  context.changes.Put(Family::kAnswers, key, EncodeAnswer(key, {context.now, operation.answer}));
  context.changes.Put(Family::kAnswers, AnswerTimeKey(absl::ToUnixNanos(context.now), key), "");
  return absl::OkStatus();
}

absl::Status DropOldAnswers(ApplyContext& context, int limit) {
  const std::string end = AnswerTimeKey(absl::ToUnixNanos(context.now - kAnswerLifetime), "");
  std::vector<std::string> keys;
  absl::Status status;
  ANABRANCH_RETURN_IF_ERROR(context.changes.Scan(
      Family::kAnswers, AnswerTimePrefix(), "", [&](absl::string_view key, absl::string_view) {
        if (key >= end || static_cast<int>(keys.size()) >= 2 * limit) return false;
        const absl::StatusOr<AnswerTimeEntry> entry = ParseAnswerTimeKey(key);
        status = entry.status();
        if (!status.ok()) return false;
        keys.emplace_back(entry->answer_key);
        keys.emplace_back(key);
        return true;
      }));
  for (std::string& key : keys) context.changes.Delete(Family::kAnswers, std::move(key));
  return status;
}

}  // namespace anabranch
