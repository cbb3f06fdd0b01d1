#include "statestore/upgrade.h"

#include <string>

#include "statestore/base/status_macros.h"
#include "statestore/key_schema.h"
#include "statestore/library_files.h"
#include "statestore/record_codec.h"
#include "statestore/tenant_use.h"

namespace anabranch {
namespace {

// An entry for each state that has a time.
absl::Status IndexExpiryTimes(const Snapshot& snapshot, Overlay& changes) {
  return snapshot.Scan(
      Family::kStates, "", "", [&](absl::string_view key, absl::string_view value) {
        absl::string_view tenant, id;
        const absl::StatusOr<StoredState> state = DecodeState(key, value);
        if (!state.ok() || state->record.expires == absl::InfiniteFuture()) return true;
        if (StateOfKey(Family::kStates, key, &tenant, &id)) {
          changes.Put(Family::kTimeline,
                      ExpiryKey(absl::ToUnixNanos(state->record.expires), tenant, id), "");
        }
        return true;
      });
}

}  // namespace

absl::Status AddRetention(Database& database) {
  const Snapshot snapshot(database);
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<std::string> there,
                             snapshot.Get(Family::kMeta, kRetentionKey));
  if (there.has_value()) return absl::OkStatus();
  Overlay changes(snapshot);
  ANABRANCH_RETURN_IF_ERROR(IndexExpiryTimes(snapshot, changes));
  ANABRANCH_ASSIGN_OR_RETURN(const UseByTenant counted, CountUse(snapshot));
  for (const auto& [tenant, use] : counted) {
    const std::string key = UseKey(tenant);
    changes.Put(Family::kMeta, key, EncodeUse(key, use));
  }
  changes.Put(Family::kMeta, std::string(kRetentionKey), EncodeNumber(kRetentionKey, 1));
  return database.Write(changes);
}

// Builds that do not know parts of payloads refuse the library by its mark, its backups by this.
absl::Status RaiseFormat(Database& database, uint64_t version) {
  if (version >= kDatabaseFormatVersion) return absl::OkStatus();
  const Snapshot snapshot(database);
  Overlay changes(snapshot);
  changes.Put(Family::kMeta, std::string(kFormatVersionKey),
              EncodeNumber(kFormatVersionKey, kDatabaseFormatVersion));
  return database.Write(changes);
}

}  // namespace anabranch
