// The paged listings of RocksStateStore.
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/byte_coding.h"
#include "statestore/library_reads.h"
#include "statestore/names.h"
#include "statestore/rocks_state_store.h"

namespace anabranch {
namespace {

// Stands for the listing in its page tokens.
std::string QueryText(absl::string_view listing, absl::string_view tenant,
                      absl::Span<const std::string> parts) {
  ByteWriter writer;
  writer.String(listing);
  writer.String(tenant);
  for (const std::string& part : parts) writer.String(part);
  return std::move(writer).Take();
}

std::string QueryText(absl::string_view tenant, const StateFilter& filter) {
  std::vector<std::string> parts = {filter.fingerprint, filter.descendant_of,
                                    absl::FormatTime(filter.created_after, absl::UTCTimeZone()),
                                    absl::FormatTime(filter.created_before, absl::UTCTimeZone())};
  for (const auto& [key, value] : filter.labels) {
    parts.push_back(key);
    parts.push_back(value);
  }
  return QueryText("states", tenant, parts);
}

using IdSet = absl::flat_hash_set<std::string>;

// All states below `root`, itself excluded.
absl::StatusOr<IdSet> IdsBelow(const Snapshot& snapshot, absl::string_view tenant,
                               const std::string& root) {
  ANABRANCH_RETURN_IF_ERROR(ReadState(snapshot, tenant, root).status());
  IdSet found;
  std::vector<std::string> open = {root};
  while (!open.empty()) {
    const std::string prefix = EdgePrefix(tenant, Edge::kChild, open.back());
    open.pop_back();
    ANABRANCH_RETURN_IF_ERROR(
        snapshot.Scan(Family::kEdges, prefix, "", [&](absl::string_view key, absl::string_view) {
          std::string child(UserOfEdgeKey(prefix, key));
          if (found.insert(child).second) open.push_back(std::move(child));
          return true;
        }));
  }
  return found;
}

bool Matches(const StateRecord& record, const StateFilter& filter) {
  if (!filter.fingerprint.empty() && record.fingerprint != filter.fingerprint) return false;
  for (const auto& [key, value] : filter.labels) {
    const auto label = record.labels.find(key);
    if (label == record.labels.end() || label->second != value) return false;
  }
  return true;
}

absl::Status ValidateFilter(const StateFilter& filter) {
  if (filter.descendant_of.empty()) return absl::OkStatus();
  return ValidateStateId("descendant_of", filter.descendant_of);
}

// One page of records that are sorted by name. `read` gives the record of a name.
template <typename Record, typename Read>
absl::StatusOr<Page<Record>> ListNamed(const Snapshot& snapshot, Family family,
                                       const std::string& tenant, const std::string& prefix,
                                       const std::string& from, size_t size, Read read,
                                       std::string& next_name) {
  Page<Record> result;
  absl::Status status;
  const absl::Status scanned =
      snapshot.Scan(family, NamedKey(tenant, prefix), NamedKey(tenant, from),
                    [&](absl::string_view key, absl::string_view) {
                      const absl::string_view name = NameOfNamedKey(tenant, key);
                      if (result.items.size() == size) {
                        next_name = std::string(name);
                        return false;
                      }
                      absl::StatusOr<Record> record = read(snapshot, tenant, name);
                      status = record.status();
                      if (status.ok()) result.items.push_back(*std::move(record));
                      return status.ok();
                    });
  ANABRANCH_RETURN_IF_ERROR(status);
  ANABRANCH_RETURN_IF_ERROR(scanned);
  return result;
}

}  // namespace

absl::StatusOr<Page<StateRecord>> RocksStateStore::ListStates(const std::string& tenant,
                                                              const StateFilter& filter,
                                                              const PageRequest& page) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateFilter(filter));
  ANABRANCH_ASSIGN_OR_RETURN(const size_t size, PageSize(page));
  const std::string query = QueryText(tenant, filter);
  ANABRANCH_ASSIGN_OR_RETURN(std::string from, page_tokens_.Decode(query, page.token));
  const Snapshot snapshot(*database_);
  IdSet descendants;
  if (!filter.descendant_of.empty()) {
    ANABRANCH_ASSIGN_OR_RETURN(descendants, IdsBelow(snapshot, tenant, filter.descendant_of));
  }
  if (from.empty()) from = TimelineKey(tenant, absl::ToUnixNanos(filter.created_after), "");

  Page<StateRecord> result;
  const auto visit = [&](absl::string_view key) -> absl::StatusOr<bool> {
    ANABRANCH_ASSIGN_OR_RETURN(const TimelineEntry entry, ParseTimelineKey(tenant, key));
    if (entry.created_unix_nanos >= absl::ToUnixNanos(filter.created_before)) return false;
    if (!filter.descendant_of.empty() && !descendants.contains(entry.state)) return true;
    absl::StatusOr<StoredState> state = ReadState(snapshot, tenant, entry.state);
    // Entries that a lost record, or a damaged and rewritten one, left behind lead nowhere until
    // garbage collection removes them.
    if (absl::IsNotFound(state.status())) return true;
    ANABRANCH_RETURN_IF_ERROR(state.status());
    if (absl::ToUnixNanos(state->record.created) != entry.created_unix_nanos) return true;
    if (state->record.thinned || !Matches(state->record, filter)) return true;
    if (result.items.size() == size) {
      result.next = page_tokens_.Encode(query, key);
      return false;
    }
    result.items.push_back(std::move(state->record));
    return true;
  };
  absl::Status status;
  const absl::Status scanned = snapshot.Scan(Family::kTimeline, TenantPrefix(tenant), from,
                                             [&](absl::string_view key, absl::string_view) {
                                               const absl::StatusOr<bool> more = visit(key);
                                               status = more.status();
                                               return more.ok() && *more;
                                             });
  ANABRANCH_RETURN_IF_ERROR(status);
  ANABRANCH_RETURN_IF_ERROR(scanned);
  return result;
}

absl::StatusOr<IdSet> RocksStateStore::Descendants(const std::string& tenant,
                                                   const std::string& id) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("id", id));
  return IdsBelow(Snapshot(*database_), tenant, id);
}

absl::StatusOr<Page<StateRecord>> RocksStateStore::GetLineage(const std::string& tenant,
                                                              const std::string& id,
                                                              const PageRequest& page) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("id", id));
  ANABRANCH_ASSIGN_OR_RETURN(const size_t size, PageSize(page));
  const std::string query = QueryText("lineage", tenant, {id});
  ANABRANCH_ASSIGN_OR_RETURN(const std::string from, page_tokens_.Decode(query, page.token));
  Page<StateRecord> result;
  ANABRANCH_RETURN_IF_ERROR(WalkLineage(Snapshot(*database_), tenant, from.empty() ? id : from,
                                        [&](const StoredState& state) -> absl::StatusOr<bool> {
                                          if (result.items.size() == size) {
                                            result.next =
                                                page_tokens_.Encode(query, state.record.id);
                                            return false;
                                          }
                                          result.items.push_back(state.record);
                                          return true;
                                        }));
  return result;
}

absl::StatusOr<StateUsers> RocksStateStore::GetUsers(const std::string& tenant,
                                                     const std::string& id) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateStateId("id", id));
  const Snapshot snapshot(*database_);
  StateUsers users;
  const std::pair<Edge, std::vector<std::string>*> kinds[] = {{Edge::kChild, &users.children},
                                                              {Edge::kRef, &users.refs},
                                                              {Edge::kSession, &users.sessions}};
  for (const auto& [edge, names] : kinds) {
    const std::string prefix = EdgePrefix(tenant, edge, id);
    ANABRANCH_RETURN_IF_ERROR(snapshot.Scan(
        Family::kEdges, prefix, "", [&, names = names](absl::string_view key, absl::string_view) {
          names->emplace_back(UserOfEdgeKey(prefix, key));
          return true;
        }));
  }
  return users;
}

absl::StatusOr<Page<RefRecord>> RocksStateStore::ListRefs(const std::string& tenant,
                                                          const std::string& prefix,
                                                          const PageRequest& page) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateNamePrefix("prefix", prefix));
  ANABRANCH_ASSIGN_OR_RETURN(const size_t size, PageSize(page));
  const std::string query = QueryText("refs", tenant, {prefix});
  ANABRANCH_ASSIGN_OR_RETURN(const std::string from, page_tokens_.Decode(query, page.token));
  std::string next_name;
  ANABRANCH_ASSIGN_OR_RETURN(Page<RefRecord> result,
                             ListNamed<RefRecord>(Snapshot(*database_), Family::kRefs, tenant,
                                                  prefix, from, size, ReadRef, next_name));
  if (!next_name.empty()) result.next = page_tokens_.Encode(query, next_name);
  return result;
}

absl::StatusOr<Page<SessionRecord>> RocksStateStore::ListSessions(const std::string& tenant,
                                                                  const std::string& prefix,
                                                                  const PageRequest& page) {
  ANABRANCH_RETURN_IF_ERROR(ValidateTenant(tenant));
  ANABRANCH_RETURN_IF_ERROR(ValidateNamePrefix("prefix", prefix));
  ANABRANCH_ASSIGN_OR_RETURN(const size_t size, PageSize(page));
  const std::string query = QueryText("sessions", tenant, {prefix});
  ANABRANCH_ASSIGN_OR_RETURN(const std::string from, page_tokens_.Decode(query, page.token));
  std::string next_name;
  ANABRANCH_ASSIGN_OR_RETURN(
      Page<SessionRecord> result,
      ListNamed<SessionRecord>(Snapshot(*database_), Family::kSessions, tenant, prefix, from, size,
                               ReadSession, next_name));
  if (!next_name.empty()) result.next = page_tokens_.Encode(query, next_name);
  return result;
}

}  // namespace anabranch
