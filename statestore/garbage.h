// Finding and removing what nothing needs. Commits leave nothing of the kind: record, payload,
// blobs and index entries go in one batch. Entries that lead nowhere, and payloads that no record
// names (unnamed_payloads.h), come from damage. What is found in a snapshot is looked at again by
// the writer before it goes, so nothing is lost that a commit under way names. What deleting does
// leave is space in RocksDB's files, which only rewriting gives back.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "statestore/database.h"
#include "statestore/retention.h"
#include "statestore/state_store.h"

namespace anabranch {

// Whether an entry of the families edges, timeline, prefixes or log leads nowhere, or no record
// names a key of the payloads. Never true of one whose end cannot be read.
absl::StatusOr<bool> IsStale(const KeyValueReader& reader, Family family, absl::string_view key);
// The key of the blob that an edge says is needed; empty for other edges.
std::string BlobOfEdge(absl::string_view edge_key);

absl::StatusOr<GarbageReport> CollectGarbage(Database& database, StateStore& store,
                                             const std::string& directory,
                                             const GarbageOptions& options);

}  // namespace anabranch
