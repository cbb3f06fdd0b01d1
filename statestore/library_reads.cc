#include "statestore/library_reads.h"

#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"

namespace anabranch {
namespace {

absl::Status Named(absl::string_view what, absl::string_view name, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(what, " ", name, ": ", status.message()));
}

absl::Status Missing(absl::string_view what, absl::string_view name) {
  return absl::NotFoundError(absl::StrCat("there is no ", what, " ", name));
}

// The value of a named key, decoded; errors name it.
template <typename Decode>
auto ReadNamed(const KeyValueReader& reader, Family family, const std::string& key,
               absl::string_view what, absl::string_view name, Decode decode)
    -> decltype(decode(key, std::string())) {
  absl::StatusOr<std::optional<std::string>> value = reader.Get(family, key);
  if (!value.ok()) return Named(what, name, value.status());
  if (!value->has_value()) return Missing(what, name);
  auto decoded = decode(key, *std::move(*value));
  if (!decoded.ok()) return Named(what, name, decoded.status());
  return decoded;
}

// Of a key that concerns none, nothing.
void AddState(Family family, absl::string_view key, std::vector<StateName>& states) {
  absl::string_view tenant, id;
  if (StateOfKey(family, key, &tenant, &id)) {
    states.push_back({std::string(tenant), std::string(id)});
  }
}

}  // namespace

absl::StatusOr<StoredState> ReadState(const KeyValueReader& reader, absl::string_view tenant,
                                      absl::string_view id) {
  ANABRANCH_ASSIGN_OR_RETURN(
      StoredState state,
      ReadNamed(reader, Family::kStates, NamedKey(tenant, id), "state", id, DecodeState));
  state.record.tenant = std::string(tenant);
  state.record.id = std::string(id);
  return state;
}

absl::StatusOr<std::vector<StateName>> ReadStateNames(const KeyValueReader& reader) {
  std::vector<StateName> states;
  ANABRANCH_RETURN_IF_ERROR(
      reader.Scan(Family::kStates, "", "", [&](absl::string_view key, absl::string_view) {
        AddState(Family::kStates, key, states);
        return true;
      }));
  return states;
}

std::vector<StateName> StatesIn(const Overlay& changes) {
  std::vector<StateName> states;
  for (Family family : {Family::kStates, Family::kEdges}) {
    for (const auto& [key, value] : changes.changes(family)) {
      AddState(family, key, states);
    }
  }
  return states;
}

absl::Status CheckUsable(const StateRecord& state) {
  if (!state.thinned) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("state ", state.id, " was thinned: its content is gone, only its tokens stay"));
}

absl::StatusOr<std::string> ReadBlob(const KeyValueReader& reader, absl::string_view tenant,
                                     absl::string_view hash) {
  return ReadNamed(reader, Family::kBlobs, NamedKey(tenant, hash), "blob", hash, DecodeBlob);
}

absl::StatusOr<RefRecord> ReadRef(const KeyValueReader& reader, absl::string_view tenant,
                                  absl::string_view name) {
  ANABRANCH_ASSIGN_OR_RETURN(RefRecord ref, ReadNamed(reader, Family::kRefs, NamedKey(tenant, name),
                                                      "ref", name, DecodeRef));
  ref.tenant = std::string(tenant);
  ref.name = std::string(name);
  return ref;
}

absl::StatusOr<SessionRecord> ReadSession(const KeyValueReader& reader, absl::string_view tenant,
                                          absl::string_view id) {
  ANABRANCH_ASSIGN_OR_RETURN(
      SessionRecord session,
      ReadNamed(reader, Family::kSessions, NamedKey(tenant, id), "session", id, DecodeSession));
  session.tenant = std::string(tenant);
  session.id = std::string(id);
  return session;
}

absl::StatusOr<LogBounds> ReadLogBounds(const KeyValueReader& reader, absl::string_view tenant,
                                        absl::string_view session) {
  return ReadNamed(reader, Family::kLog, LogBoundsKey(tenant, session), "session", session,
                   DecodeLogBounds);
}

absl::StatusOr<std::vector<int32_t>> ReadLogTokens(const KeyValueReader& reader,
                                                   absl::string_view tenant,
                                                   absl::string_view session,
                                                   const LogBounds& bounds) {
  std::vector<int32_t> tokens;
  absl::Status status;
  const std::string prefix = LogChunkPrefix(tenant, session);
  const auto append = [&](absl::string_view key, absl::string_view value) -> absl::Status {
    ANABRANCH_ASSIGN_OR_RETURN(const int64_t position, PositionOfLogChunkKey(prefix, key));
    if (position != bounds.start + static_cast<int64_t>(tokens.size())) {
      return absl::DataLossError(absl::StrCat("tokens are missing before position ", position));
    }
    ANABRANCH_ASSIGN_OR_RETURN(const std::vector<int32_t> chunk, DecodeTokens(key, value));
    tokens.insert(tokens.end(), chunk.begin(), chunk.end());
    return absl::OkStatus();
  };
  const absl::Status scanned =
      reader.Scan(Family::kLog, prefix, "", [&](absl::string_view key, absl::string_view value) {
        status = append(key, value);
        return status.ok();
      });
  if (status.ok()) status = scanned;
  if (status.ok() && bounds.start + static_cast<int64_t>(tokens.size()) != bounds.end) {
    status = absl::DataLossError(
        absl::StrCat("it ends at ", bounds.start + tokens.size(), " instead of ", bounds.end));
  }
  if (!status.ok()) return Named("log of session", session, status);
  return tokens;
}

absl::StatusOr<std::string> AnyUser(const KeyValueReader& reader, absl::string_view tenant,
                                    Edge edge, absl::string_view used) {
  std::string user;
  const std::string prefix = EdgePrefix(tenant, edge, used);
  ANABRANCH_RETURN_IF_ERROR(
      reader.Scan(Family::kEdges, prefix, "", [&](absl::string_view key, absl::string_view) {
        user = std::string(UserOfEdgeKey(prefix, key));
        return false;
      }));
  return user;
}

// Ids are hashes over the parents' ids, so lineage has no cycles: a parent exists before its child.
absl::Status WalkLineage(const KeyValueReader& reader, absl::string_view tenant,
                         absl::string_view id,
                         absl::FunctionRef<absl::StatusOr<bool>(const StoredState&)> visit) {
  std::string current(id);
  for (;;) {
    ANABRANCH_ASSIGN_OR_RETURN(const StoredState state, ReadState(reader, tenant, current));
    ANABRANCH_ASSIGN_OR_RETURN(const bool more, visit(state));
    if (!more || state.record.parents.empty()) return absl::OkStatus();
    current = state.record.parents.front();
  }
}

}  // namespace anabranch
