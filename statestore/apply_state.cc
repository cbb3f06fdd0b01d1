// States: put, update, delete, with their edges, indexes and blobs.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "statestore/apply_mutation.h"
#include "statestore/base/status_macros.h"
#include "statestore/branch_points.h"
#include "statestore/library_reads.h"
#include "statestore/payloads.h"
#include "statestore/tenant_use.h"

namespace anabranch {
namespace {

absl::Status CheckContinuesParent(const StateRecord& record, const StateRecord& parent) {
  if (parent.fingerprint != record.fingerprint ||
      parent.numerics_profile != record.numerics_profile) {
    return absl::FailedPreconditionError(
        absl::StrCat("state ", record.id, " is of model ", record.fingerprint, " (",
                     record.numerics_profile, "), its parent ", parent.id, " of ",
                     parent.fingerprint, " (", parent.numerics_profile, ")"));
  }
  const bool append = record.operation == StateOperation::kAppend;
  const int64_t expected = parent.token_count + static_cast<int64_t>(record.span_tokens.size());
  if (append && record.token_count != expected) {
    return absl::InvalidArgumentError(absl::StrCat(
        "record.token_count is ", record.token_count, "; the parent's ", parent.token_count,
        " and the span's ", record.span_tokens.size(), " tokens make ", expected));
  }
  return absl::OkStatus();
}

// Checks the parents and gives the hash of the state's tokens from the root; empty if it or an
// ancestor was computed.
absl::StatusOr<std::string> CheckParents(const StateRecord& record, const ApplyContext& context) {
  std::string hash = context.hasher.Empty();
  for (const std::string& id : record.parents) {
    ANABRANCH_ASSIGN_OR_RETURN(const StoredState parent,
                               ReadState(context.changes, record.tenant, id));
    ANABRANCH_RETURN_IF_ERROR(CheckContinuesParent(record, parent.record));
    hash = parent.prefix_hash;
  }
  if (record.operation != StateOperation::kAppend || hash.empty()) return std::string();
  return context.hasher.Extend(hash, record.span_tokens);
}

// Entries that damage took.
absl::Status RestoreIndexes(const StateRecord& stored, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(const StoredState state,
                             ReadState(context.changes, stored.tenant, stored.id));
  ForEachIndexKey(state, context.hasher, [&](Family family, std::string key) {
    const auto entry = context.changes.Get(family, key);
    if (!entry.ok() || !entry->has_value()) context.changes.Put(family, std::move(key), "");
  });
  return absl::OkStatus();
}

// A stored state stays as it is but for the reason to keep it; damaged parts are replaced, and a
// lossy form by a more exact one.
absl::Status HealState(PutState& operation, const StateRecord& stored, ApplyContext& context) {
  if (operation.record.kind > stored.kind) {
    StoredState kept;
    ANABRANCH_ASSIGN_OR_RETURN(kept, ReadState(context.changes, stored.tenant, stored.id));
    kept.record.kind = operation.record.kind;
    const std::string key = NamedKey(stored.tenant, stored.id);
    context.changes.Put(Family::kStates, key, EncodeState(key, kept));
  }
  ANABRANCH_RETURN_IF_ERROR(RestoreIndexes(stored, context));
  // A more exact form of the same state came for free. With blobs it is left: a session that stands
  // on the state may count on those that would go.
  const bool better = operation.record.codec < stored.codec && stored.blob_hashes.empty() &&
                      operation.record.lossy_restores <= stored.lossy_restores;
  if (better || !CheckPayload(context.changes, stored).ok()) {
    ANABRANCH_ASSIGN_OR_RETURN(StoredState damaged,
                               ReadState(context.changes, stored.tenant, stored.id));
    return ReplaceContent(std::move(damaged), operation, context);
  }
  for (size_t i = 0; i < stored.blob_hashes.size(); ++i) {
    const std::string& hash = stored.blob_hashes[i];
    if (ReadBlob(context.changes, stored.tenant, hash).ok()) continue;
    const auto& sent = operation.record.blob_hashes;
    const auto found = std::find(sent.begin(), sent.end(), hash);
    if (found == sent.end() || operation.blobs[found - sent.begin()].empty()) continue;
    const std::string key = NamedKey(stored.tenant, hash);
    context.changes.Put(Family::kBlobs, key,
                        EncodeBlob(key, operation.blobs[found - sent.begin()]));
  }
  return absl::OkStatus();
}

// A thinned state is kept for what goes on from it alone.
absl::Status DropThinnedParents(const StateRecord& record, ApplyContext& context) {
  for (const std::string& id : record.parents) {
    const absl::StatusOr<StoredState> parent = ReadState(context.changes, record.tenant, id);
    if (!parent.ok() || !parent->record.thinned) continue;
    ANABRANCH_ASSIGN_OR_RETURN(const std::string child,
                               AnyUser(context.changes, record.tenant, Edge::kChild, id));
    if (child.empty()) {
      ANABRANCH_RETURN_IF_ERROR(Apply(DeleteState{record.tenant, id}, context));
    }
  }
  return absl::OkStatus();
}

// An entry that was moved already, because the state was needed, is dropped when its time comes.
void MoveExpiry(StateRecord& record, absl::Time expires, ApplyContext& context) {
  const auto key = [&] {
    return ExpiryKey(absl::ToUnixNanos(record.expires), record.tenant, record.id);
  };
  if (record.expires != absl::InfiniteFuture()) context.changes.Delete(Family::kTimeline, key());
  record.expires = expires;
  if (record.expires != absl::InfiniteFuture()) context.changes.Put(Family::kTimeline, key(), "");
}

absl::Status CheckUnneeded(const DeleteState& operation, const ApplyContext& context) {
  struct Need {
    Edge edge;
    const char* what;
  };
  for (const Need need :
       {Need{Edge::kRef, "ref"}, Need{Edge::kSession, "session"}, Need{Edge::kChild, "state"}}) {
    ANABRANCH_ASSIGN_OR_RETURN(const std::string user,
                               AnyUser(context.changes, operation.tenant, need.edge, operation.id));
    if (!user.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("state ", operation.id, " is needed by the ", need.what, " ", user));
    }
  }
  return absl::OkStatus();
}

}  // namespace

void ForEachIndexKey(const StoredState& state, const PrefixHasher& hasher,
                     absl::FunctionRef<void(Family, std::string)> visit) {
  const StateRecord& record = state.record;
  visit(Family::kTimeline,
        TimelineKey(record.tenant, absl::ToUnixNanos(record.created), record.id));
  if (record.expires != absl::InfiniteFuture()) {
    visit(Family::kTimeline,
          ExpiryKey(absl::ToUnixNanos(record.expires), record.tenant, record.id));
  }
  for (const std::string& parent : record.parents) {
    visit(Family::kEdges, EdgeKey(record.tenant, Edge::kChild, parent, record.id));
  }
  if (state.prefix_hash.empty()) return;
  if (IsWhole(record)) {  // only what has content is found as the prefix of a history
    const std::string scope = hasher.Scope(record.fingerprint, record.numerics_profile);
    visit(Family::kPrefixes, PrefixEntryKey(PrefixScopeKey(record.tenant, scope),
                                            record.token_count, state.prefix_hash, record.id));
  }
  std::string span = SpanEdgeKey(state, hasher);
  if (!span.empty()) visit(Family::kEdges, std::move(span));
}

absl::Status Apply(PutState& operation, ApplyContext& context) {
  const StateRecord& record = operation.record;
  const absl::StatusOr<StoredState> stored = ReadState(context.changes, record.tenant, record.id);
  // What has no content changes nothing of what is there.
  if (stored.ok() && !IsWhole(record)) return absl::OkStatus();
  if (stored.ok() && IsWhole(stored->record)) {
    return HealState(operation, stored->record, context);
  }
  // A damaged, thinned or archived record is written anew from what was sent.
  if (!stored.ok() && !absl::IsNotFound(stored.status()) && !absl::IsDataLoss(stored.status())) {
    return stored.status();
  }
  StoredState state{record, ""};
  if (stored.ok()) {
    state.record.created = stored->record.created;
    state.record.expires = stored->record.expires;
    state.record.kind = std::max(record.kind, stored->record.kind);
    state.record.pinned = record.pinned || stored->record.pinned;
    state.record.labels.insert(stored->record.labels.begin(), stored->record.labels.end());
  }
  ANABRANCH_ASSIGN_OR_RETURN(state.prefix_hash, CheckParents(record, context));
  ANABRANCH_RETURN_IF_ERROR(PutBlobs(operation, context));
  if (state.record.created == absl::UnixEpoch()) state.record.created = context.now;
  if (!stored.ok() && state.record.expires == absl::InfiniteFuture()) {
    state.record.expires = context.now + context.default_expiry;
  }
  state.record.etag = context.NewEtag();
  if (absl::IsDataLoss(stored.status())) {
    DeleteAnyPayload(record.tenant, record.id, context.changes);
  }
  if (IsWhole(record)) {
    PutPayload(std::move(operation.payload), context.payload_part_bytes, state.record,
               context.changes);
  }
  const std::string key = NamedKey(record.tenant, record.id);
  context.changes.Put(Family::kStates, key, EncodeState(key, state));
  ForEachIndexKey(state, context.hasher, [&](Family family, std::string index_key) {
    context.changes.Put(family, std::move(index_key), "");
  });
  return absl::OkStatus();
}

absl::Status Apply(const UpdateState& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(StoredState state,
                             ReadState(context.changes, operation.tenant, operation.id));
  StateRecord& record = state.record;
  if (operation.etag.has_value() && *operation.etag != record.etag) {
    return absl::AbortedError(absl::StrCat("state ", operation.id, " has the etag ", record.etag,
                                           ", not ", *operation.etag));
  }
  if (operation.labels.has_value()) record.labels = *operation.labels;
  if (operation.expires.has_value()) MoveExpiry(record, *operation.expires, context);
  if (operation.pinned.has_value()) record.pinned = *operation.pinned;
  record.etag = context.NewEtag();
  const std::string key = NamedKey(operation.tenant, operation.id);
  context.changes.Put(Family::kStates, key, EncodeState(key, state));
  return absl::OkStatus();
}

absl::Status Apply(const DeleteState& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(const StoredState state,
                             ReadState(context.changes, operation.tenant, operation.id));
  ANABRANCH_RETURN_IF_ERROR(CheckUnneeded(operation, context));
  return DropState(state, context);
}

absl::Status DropState(const StoredState& state, ApplyContext& context) {
  const std::string key = NamedKey(state.record.tenant, state.record.id);
  context.changes.Delete(Family::kStates, key);
  DeletePayload(state.record, context.changes);
  ForEachIndexKey(state, context.hasher, [&](Family family, std::string index_key) {
    context.changes.Delete(family, std::move(index_key));
  });
  ANABRANCH_RETURN_IF_ERROR(DropBlobs(state.record, context));
  return DropThinnedParents(state.record, context);
}

}  // namespace anabranch
