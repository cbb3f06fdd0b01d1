// Giving up the content of a state that nothing but its child needs.
#include "absl/container/btree_set.h"
#include "statestore/apply_mutation.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"
#include "statestore/payloads.h"
#include "statestore/state_need.h"

namespace anabranch {
namespace {

absl::Status ThinContent(StoredState& state, ApplyContext& context) {
  StateRecord& record = state.record;
  // It must not be found as the prefix of a history; the rest of the index is lineage.
  ForEachIndexKey(state, context.hasher, [&](Family family, std::string key) {
    if (family == Family::kPrefixes) context.changes.Delete(family, std::move(key));
  });
  ANABRANCH_RETURN_IF_ERROR(DropBlobs(record, context));
  DeletePayload(record, context.changes);
  record.thinned = true;
  record.header.clear();
  record.payload_bytes = record.payload_checksum = record.payload_part_bytes = 0;
  record.blob_bytes = 0;
  record.blob_hashes.clear();
  record.etag = context.NewEtag();
  const std::string key = NamedKey(record.tenant, record.id);
  context.changes.Put(Family::kStates, key, EncodeState(key, state));
  return absl::OkStatus();
}

}  // namespace

absl::Status DropBlobs(const StateRecord& record, ApplyContext& context) {
  const absl::btree_set<std::string> hashes(record.blob_hashes.begin(), record.blob_hashes.end());
  for (const std::string& hash : hashes) {
    context.changes.Delete(Family::kEdges, EdgeKey(record.tenant, Edge::kBlob, hash, record.id));
    ANABRANCH_ASSIGN_OR_RETURN(const std::string user,
                               AnyUser(context.changes, record.tenant, Edge::kBlob, hash));
    if (user.empty()) context.changes.Delete(Family::kBlobs, NamedKey(record.tenant, hash));
  }
  return absl::OkStatus();
}

// What a child needs are the tokens. Two children make it a point to fork from and the ancestor
// that a merge of them starts with; without any it is the end of a line.
absl::Status Apply(const ThinState& operation, ApplyContext& context) {
  absl::StatusOr<StoredState> state = ReadState(context.changes, operation.tenant, operation.id);
  if (absl::IsNotFound(state.status())) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(state.status());
  const StateRecord& record = state->record;
  if (record.thinned || record.pinned || !record.labels.empty()) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StateNeed need, NeedOf(context.changes, record));
  if (!need.tokens_only() || need.children != 1) return absl::OkStatus();
  ReachCrashPoint(CrashPoint::kStateThinned);
  return ThinContent(*state, context);
}

}  // namespace anabranch
