// Giving up the content of a state that nothing but its child needs.
#include "absl/container/btree_set.h"
#include "statestore/apply_mutation.h"
#include "statestore/base/status_macros.h"
#include "statestore/library_reads.h"

namespace anabranch {
namespace {

absl::StatusOr<std::vector<std::string>> Children(const StateRecord& record,
                                                  const ApplyContext& context) {
  std::vector<std::string> children;
  const std::string prefix = EdgePrefix(record.tenant, Edge::kChild, record.id);
  ANABRANCH_RETURN_IF_ERROR(context.changes.Scan(
      Family::kEdges, prefix, "", [&](absl::string_view key, absl::string_view) {
        children.emplace_back(UserOfEdgeKey(prefix, key));
        return children.size() < 2;
      }));
  return children;
}

// What a child needs are the tokens. Two children make it a point to fork from and the ancestor
// that a merge of them starts with; without any it is the end of a line.
absl::StatusOr<bool> OnlyItsTokensAreNeeded(const StateRecord& record,
                                            const ApplyContext& context) {
  if (record.operation != StateOperation::kAppend || record.pinned || !record.labels.empty()) {
    return false;
  }
  for (const Edge edge : {Edge::kRef, Edge::kSession}) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string user,
                               AnyUser(context.changes, record.tenant, edge, record.id));
    if (!user.empty()) return false;
  }
  ANABRANCH_ASSIGN_OR_RETURN(const std::vector<std::string> children, Children(record, context));
  if (children.size() != 1) return false;
  ANABRANCH_ASSIGN_OR_RETURN(const StoredState child,
                             ReadState(context.changes, record.tenant, children.front()));
  return child.record.operation == StateOperation::kAppend;
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

absl::Status Apply(const ThinState& operation, ApplyContext& context) {
  absl::StatusOr<StoredState> state = ReadState(context.changes, operation.tenant, operation.id);
  if (absl::IsNotFound(state.status())) return absl::OkStatus();
  ANABRANCH_RETURN_IF_ERROR(state.status());
  StateRecord& record = state->record;
  if (record.thinned) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const bool thin, OnlyItsTokensAreNeeded(record, context));
  if (!thin) return absl::OkStatus();
  // It must not be found as the prefix of a history; the rest of the index is lineage.
  ForEachIndexKey(*state, context.hasher, [&](Family family, std::string key) {
    if (family == Family::kPrefixes) context.changes.Delete(family, std::move(key));
  });
  ANABRANCH_RETURN_IF_ERROR(DropBlobs(record, context));
  record.thinned = true;
  record.header.clear();
  record.payload_bytes = record.payload_checksum = record.blob_bytes = 0;
  record.blob_hashes.clear();
  record.etag = context.NewEtag();
  const std::string key = NamedKey(operation.tenant, operation.id);
  context.changes.Put(Family::kStates, key, EncodeState(key, *state));
  context.changes.Delete(Family::kPayloads, key);
  return absl::OkStatus();
}

}  // namespace anabranch
