#include "statestore/tenant_use.h"

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"

namespace anabranch {
namespace {

// "use", a zero byte, the tenant: no other key of the family has a zero byte.
constexpr absl::string_view kUsePrefix("use\0", 4);

absl::string_view TenantOfKey(absl::string_view key) { return key.substr(0, key.find('\0')); }

TenantUse UseOf(const StateRecord& record) {
  TenantUse use;
  use.states = 1;
  use.archived = record.codec == StateCodec::kArchive ? 1 : 0;
  use.bytes = static_cast<int64_t>(record.payload_bytes + record.header.size() +
                                   record.span_tokens.size() * sizeof(int32_t));
  return use;
}

void Subtract(const TenantUse& less, TenantUse& use) {
  use.states -= less.states;
  use.archived -= less.archived;
  use.sessions -= less.sessions;
  use.refs -= less.refs;
  use.bytes -= less.bytes;
}

// A damaged record that is replaced was counted when it was whole; what it was then is not known,
// and what replaces it is the same state.
absl::Status AddStateChange(absl::string_view key, const std::optional<absl::Cord>& value,
                            const KeyValueReader& base, TenantUse& use) {
  const absl::StatusOr<std::optional<std::string>> before = base.Get(Family::kStates, key);
  if (!before.ok() && !absl::IsDataLoss(before.status())) return before.status();
  absl::StatusOr<StoredState> old = absl::DataLossError("");
  if (before.ok() && before->has_value()) old = DecodeState(key, **before);
  const bool existed = !before.ok() || before->has_value();
  if (existed && !old.ok()) {
    if (!value.has_value()) --use.states;
    return absl::OkStatus();
  }
  if (existed) Subtract(UseOf(old->record), use);
  if (!value.has_value()) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StoredState now, DecodeState(key, std::string(*value)));
  Add(UseOf(now.record), use);
  return absl::OkStatus();
}

// Of a blob that goes with the last of its users: what that one noted.
absl::StatusOr<int64_t> BytesOfDroppedBlob(const Overlay& own, const KeyValueReader& base,
                                           absl::string_view tenant, absl::string_view hash) {
  const std::string prefix = EdgePrefix(tenant, Edge::kBlob, hash);
  const Overlay::Changes& edges = own.changes(Family::kEdges);
  for (auto edge = edges.lower_bound(prefix);
       edge != edges.end() && absl::StartsWith(edge->first, prefix); ++edge) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::optional<std::string> note,
                               base.Get(Family::kEdges, edge->first));
    if (!note.has_value() || note->empty()) continue;
    const absl::StatusOr<uint64_t> bytes = DecodeNumber(edge->first, *note);
    if (bytes.ok()) return static_cast<int64_t>(*bytes);
  }
  const absl::StatusOr<std::string> blob = ReadBlob(base, tenant, hash);
  return blob.ok() ? static_cast<int64_t>(blob->size()) : 0;
}

absl::Status AddBlobChange(absl::string_view key, bool dropped, const Overlay& own,
                           const KeyValueReader& base, TenantUse& use) {
  const absl::string_view tenant = TenantOfKey(key);
  const absl::string_view hash = NameOfNamedKey(tenant, key);
  if (dropped) {
    ANABRANCH_ASSIGN_OR_RETURN(const int64_t bytes, BytesOfDroppedBlob(own, base, tenant, hash));
    use.bytes -= bytes;
    return absl::OkStatus();
  }
  ANABRANCH_ASSIGN_OR_RETURN(const std::string user, AnyUser(base, tenant, Edge::kBlob, hash));
  if (!user.empty()) return absl::OkStatus();  // it was there, damaged
  ANABRANCH_ASSIGN_OR_RETURN(const int64_t bytes, BlobBytes(own, tenant, hash));
  use.bytes += bytes;
  return absl::OkStatus();
}

// +1, 0 or -1 for each key of the family.
absl::Status CountKeys(const Overlay& own, const KeyValueReader& base, Family family,
                       int64_t TenantUse::*field, UseByTenant& changes) {
  for (const auto& [key, value] : own.changes(family)) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::optional<std::string> before, base.Get(family, key));
    const int64_t change = (value.has_value() ? 1 : 0) - (before.has_value() ? 1 : 0);
    if (change != 0) changes[std::string(TenantOfKey(key))].*field += change;
  }
  return absl::OkStatus();
}

struct Limit {
  const char* name;
  const char* remedy;
  int64_t TenantUse::*used;
  int64_t Quotas::*limit;
};
constexpr Limit kLimits[] = {{"states", "Delete states, let them expire, or raise --quota-states",
                              &TenantUse::states, &Quotas::states},
                             {"sessions", "Close sessions, or raise --quota-sessions",
                              &TenantUse::sessions, &Quotas::sessions},
                             {"bytes", "Delete states, let them expire, or raise --quota-bytes",
                              &TenantUse::bytes, &Quotas::bytes}};

}  // namespace

void Add(const TenantUse& more, TenantUse& use) {
  use.states += more.states;
  use.archived += more.archived;
  use.sessions += more.sessions;
  use.refs += more.refs;
  use.bytes += more.bytes;
}

absl::StatusOr<UseByTenant> UseChanges(const Overlay& own, const KeyValueReader& base) {
  UseByTenant changes;
  for (const auto& [key, value] : own.changes(Family::kStates)) {
    ANABRANCH_RETURN_IF_ERROR(
        AddStateChange(key, value, base, changes[std::string(TenantOfKey(key))]));
  }
  for (const auto& [key, value] : own.changes(Family::kBlobs)) {
    ANABRANCH_RETURN_IF_ERROR(
        AddBlobChange(key, !value.has_value(), own, base, changes[std::string(TenantOfKey(key))]));
  }
  ANABRANCH_RETURN_IF_ERROR(CountKeys(own, base, Family::kSessions, &TenantUse::sessions, changes));
  ANABRANCH_RETURN_IF_ERROR(CountKeys(own, base, Family::kRefs, &TenantUse::refs, changes));
  return changes;
}

absl::Status CheckQuotas(const std::string& tenant, const TenantUse& use, const TenantUse& change,
                         const Quotas& quotas) {
  for (const Limit& limit : kLimits) {
    const int64_t most = quotas.*limit.limit, wanted = change.*limit.used;
    const int64_t used = use.*limit.used;
    if (most == 0 || wanted <= 0 || used + wanted <= most) continue;
    absl::Status status = absl::ResourceExhaustedError(absl::StrCat(
        "the quota of ", limit.name, " is used up: tenant ", tenant, " has ", used, " of ", most,
        " ", limit.name, ", and this would add ", wanted, ". ", limit.remedy));
    status.SetPayload(kQuotaPayload, absl::Cord(absl::StrCat(limit.name, " ", used, " ", most)));
    return status;
  }
  return absl::OkStatus();
}

std::string UseKey(absl::string_view tenant) { return absl::StrCat(kUsePrefix, tenant); }

absl::StatusOr<UseByTenant> ReadUse(const KeyValueReader& reader) {
  UseByTenant use;
  absl::Status status;
  ANABRANCH_RETURN_IF_ERROR(reader.Scan(
      Family::kMeta, kUsePrefix, "", [&](absl::string_view key, absl::string_view value) {
        absl::StatusOr<TenantUse> decoded = DecodeUse(key, value);
        status = decoded.status();
        if (status.ok()) use[std::string(key.substr(kUsePrefix.size()))] = *decoded;
        return status.ok();
      }));
  ANABRANCH_RETURN_IF_ERROR(status);
  return use;
}

// Records that are damaged do not count: they hold nothing that anyone can read.
absl::StatusOr<UseByTenant> CountUse(const KeyValueReader& reader) {
  UseByTenant use;
  const auto tenant_of = [&](absl::string_view key) -> TenantUse& {
    return use[std::string(TenantOfKey(key))];
  };
  ANABRANCH_RETURN_IF_ERROR(
      reader.Scan(Family::kStates, "", "", [&](absl::string_view key, absl::string_view value) {
        const absl::StatusOr<StoredState> state = DecodeState(key, value);
        if (state.ok()) Add(UseOf(state->record), tenant_of(key));
        return true;
      }));
  for (const auto& [family, field] : {std::pair(Family::kSessions, &TenantUse::sessions),
                                      std::pair(Family::kRefs, &TenantUse::refs)}) {
    ANABRANCH_RETURN_IF_ERROR(
        reader.Scan(family, "", "", [&, field = field](absl::string_view key, absl::string_view) {
          ++(tenant_of(key).*field);
          return true;
        }));
  }
  // Every blob has an edge from each of its users, side by side.
  std::string last;
  absl::Status status;
  ANABRANCH_RETURN_IF_ERROR(
      reader.Scan(Family::kEdges, "", "", [&](absl::string_view key, absl::string_view) {
        const absl::string_view tenant = TenantOfKey(key);
        const absl::string_view rest = NameOfNamedKey(tenant, key);
        if (rest.empty() || rest.front() != static_cast<char>(Edge::kBlob)) return true;
        const absl::string_view hash = rest.substr(1, rest.find('\0') - 1);
        std::string blob = NamedKey(tenant, hash);
        if (blob == last) return true;
        const absl::StatusOr<int64_t> bytes = BlobBytes(reader, tenant, hash);
        status = bytes.status();
        if (status.ok()) tenant_of(key).bytes += *bytes;
        last = std::move(blob);
        return status.ok();
      }));
  ANABRANCH_RETURN_IF_ERROR(status);
  return use;
}

absl::StatusOr<int64_t> BlobBytes(const KeyValueReader& reader, absl::string_view tenant,
                                  absl::string_view hash) {
  absl::StatusOr<int64_t> bytes = absl::NotFoundError("no state needs it");
  const std::string prefix = EdgePrefix(tenant, Edge::kBlob, hash);
  ANABRANCH_RETURN_IF_ERROR(
      reader.Scan(Family::kEdges, prefix, "", [&](absl::string_view key, absl::string_view note) {
        const absl::StatusOr<uint64_t> noted = DecodeNumber(key, note);
        bytes = noted.ok() ? static_cast<int64_t>(*noted) : -1;
        return false;
      }));
  if (!bytes.ok() || *bytes >= 0) return bytes;
  // Of a version that noted nothing.
  const absl::StatusOr<std::string> blob = ReadBlob(reader, tenant, hash);
  return blob.ok() ? static_cast<int64_t>(blob->size()) : 0;
}

}  // namespace anabranch
