// Finding and removing what nothing needs. Commits leave nothing of the kind: record, payload,
// blobs and index entries go in one batch. Entries that lead nowhere come from damage that was
// healed. What deleting does leave is space in RocksDB's files, which only rewriting gives back.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "statestore/database.h"
#include "statestore/retention.h"
#include "statestore/state_store.h"

namespace anabranch {

// Whether an entry of the families edges, timeline, prefixes or log leads nowhere. Never true of
// one whose end cannot be read.
absl::StatusOr<bool> IsStale(const KeyValueReader& reader, Family family, absl::string_view key);
// The key of the blob that an edge says is needed; empty for other edges.
std::string BlobOfEdge(absl::string_view edge_key);

absl::StatusOr<GarbageReport> CollectGarbage(Database& database, StateStore& store,
                                             const std::string& directory,
                                             const GarbageOptions& options);

}  // namespace anabranch
