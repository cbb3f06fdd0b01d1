// Whether a library has exactly the values that its states' payloads are made of.
#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "statestore/database.h"
#include "statestore/library_files.h"
#include "statestore/record_codec.h"

namespace anabranch {

// DATA_LOSS names a key that is missing or that no record names. The library is closed.
inline absl::Status CheckPayloadKeys(const StoreOptions& options) {
  const auto database =
      Database::Open(LibraryFiles(options.directory).database, options, Database::Mode::kInspect);
  if (!database.ok()) return database.status();
  const Snapshot snapshot(**database);
  std::set<std::string> expected, found;
  absl::Status status =
      snapshot.Scan(Family::kStates, "", "", [&](absl::string_view key, absl::string_view value) {
        absl::string_view tenant, id;
        const absl::StatusOr<StoredState> state = DecodeState(key, value);
        if (!state.ok() || !StateOfKey(Family::kStates, key, &tenant, &id)) return true;
        const StateRecord& record = state->record;
        if (!IsWhole(record)) return true;
        if (record.payload_part_bytes == 0) expected.insert(NamedKey(tenant, id));
        for (uint64_t i = 0; i * record.payload_part_bytes < record.payload_bytes; ++i) {
          if (record.payload_part_bytes == 0) break;
          expected.insert(PayloadPartKey(tenant, id, i));
        }
        return true;
      });
  if (!status.ok()) return status;
  status = snapshot.Scan(Family::kPayloads, "", "", [&](absl::string_view key, absl::string_view) {
    found.emplace(key);
    return true;
  });
  if (!status.ok()) return status;
  for (const std::string& key : expected) {
    if (!found.contains(key)) return absl::DataLossError("missing: " + absl::CHexEscape(key));
  }
  for (const std::string& key : found) {
    if (!expected.contains(key)) return absl::DataLossError("nobody's: " + absl::CHexEscape(key));
  }
  return absl::OkStatus();
}

}  // namespace anabranch
