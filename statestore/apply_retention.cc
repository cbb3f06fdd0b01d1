// Letting go of states because of their time or their bytes, decided against what is stored at that
// moment.
#include <utility>

#include "statestore/apply_mutation.h"
#include "statestore/base/crash_point.h"
#include "statestore/base/status_macros.h"
#include "statestore/garbage.h"
#include "statestore/library_reads.h"
#include "statestore/state_need.h"

namespace anabranch {
namespace {

// nullopt: it does not exist, or its record is damaged and must be healed before it may go.
absl::StatusOr<std::optional<StoredState>> ReadIfWhole(const std::string& tenant,
                                                       const std::string& id,
                                                       const ApplyContext& context) {
  absl::StatusOr<StoredState> state = ReadState(context.changes, tenant, id);
  if (state.ok()) return std::optional<StoredState>(*std::move(state));
  if (absl::IsNotFound(state.status()) || absl::IsDataLoss(state.status())) {
    return std::optional<StoredState>();
  }
  return state.status();
}

// What needs a state may be damaged; then it stays.
absl::StatusOr<StateNeed> NeedOrAll(const StateRecord& record, const ApplyContext& context) {
  absl::StatusOr<StateNeed> need = NeedOf(context.changes, record);
  if (!absl::IsDataLoss(need.status())) return need;
  StateNeed all;
  all.named = true;
  return all;
}

absl::Status Archive(StoredState state, ApplyContext& context) {
  ReachCrashPoint(CrashPoint::kStateArchived);
  ++context.effect.archived;
  return ArchiveContent(std::move(state), context);
}

}  // namespace

absl::Status Apply(const ExpireState& operation, ApplyContext& context) {
  const std::string entry =
      ExpiryKey(absl::ToUnixNanos(operation.entry), operation.tenant, operation.id);
  ANABRANCH_ASSIGN_OR_RETURN(std::optional<StoredState> state,
                             ReadIfWhole(operation.tenant, operation.id, context));
  // Another entry stands for a state whose time was moved since.
  if (!state.has_value() || state->record.expires > operation.entry) {
    context.changes.Delete(Family::kTimeline, entry);
    return absl::OkStatus();
  }
  if (operation.entry > operation.now) return absl::OkStatus();
  context.changes.Delete(Family::kTimeline, entry);
  ANABRANCH_ASSIGN_OR_RETURN(const StateNeed need, NeedOrAll(state->record, context));
  if (!state->record.pinned && !need.any()) {
    ReachCrashPoint(CrashPoint::kStateExpired);
    ++context.effect.deleted;
    return DropState(*state, context);
  }
  if (!state->record.pinned && need.tokens_only() && IsWhole(state->record)) {
    ANABRANCH_RETURN_IF_ERROR(Archive(*state, context));
  }
  context.changes.Put(
      Family::kTimeline,
      ExpiryKey(absl::ToUnixNanos(operation.look_again), operation.tenant, operation.id), "");
  return absl::OkStatus();
}

absl::Status Apply(const EvictState& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(std::optional<StoredState> state,
                             ReadIfWhole(operation.tenant, operation.id, context));
  if (!state.has_value()) return absl::OkStatus();
  const StateRecord& record = state->record;
  if (!IsWhole(record) || record.pinned || !record.labels.empty()) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StateNeed need, NeedOrAll(record, context));
  if (!need.tokens_only() || need.children > 1) return absl::OkStatus();
  return Archive(*std::move(state), context);
}

absl::Status Apply(const DeleteArchived& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(const std::optional<StoredState> state,
                             ReadIfWhole(operation.tenant, operation.id, context));
  if (!state.has_value() || state->record.codec != StateCodec::kArchive) return absl::OkStatus();
  if (state->record.pinned || !state->record.labels.empty()) return absl::OkStatus();
  ANABRANCH_ASSIGN_OR_RETURN(const StateNeed need, NeedOrAll(state->record, context));
  if (need.any()) return absl::OkStatus();
  ReachCrashPoint(CrashPoint::kArchiveDeleted);
  ++context.effect.deleted;
  return DropState(*state, context);
}

absl::Status Apply(const DropStaleKey& operation, ApplyContext& context) {
  ANABRANCH_ASSIGN_OR_RETURN(const bool stale,
                             IsStale(context.changes, operation.family, operation.key));
  if (!stale) return absl::OkStatus();
  context.changes.Delete(operation.family, operation.key);
  if (operation.family == Family::kPayloads) {
    ++context.effect.orphaned_payloads;
    context.effect.orphaned_payload_bytes += static_cast<int64_t>(operation.bytes);
    return absl::OkStatus();
  }
  ++context.effect.stale_keys;
  const std::string blob = operation.family == Family::kEdges ? BlobOfEdge(operation.key) : "";
  if (blob.empty()) return absl::OkStatus();
  const size_t end = blob.find('\0');
  ANABRANCH_ASSIGN_OR_RETURN(const std::string user, AnyUser(context.changes, blob.substr(0, end),
                                                             Edge::kBlob, blob.substr(end + 1)));
  if (!user.empty()) return absl::OkStatus();
  ++context.effect.orphaned_blobs;
  context.changes.Delete(Family::kBlobs, blob);
  return absl::OkStatus();
}

}  // namespace anabranch
