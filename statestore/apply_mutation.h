// The meaning of a mutation: checks its operations in order and turns them into changes of keys.
// Pure logic over a reader; durability is the commit writer's matter.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "statestore/overlay.h"
#include "statestore/prefix_index.h"
#include "statestore/record_codec.h"
#include "statestore/state_store.h"

namespace anabranch {

// A mutation may have at most this many operations, so that a group's etags fit in kEtagsPerGroup.
inline constexpr size_t kMaxOperations = 1 << 16;

// How long a request id is remembered.
inline constexpr absl::Duration kAnswerLifetime = absl::Hours(24);

struct ApplyContext {
  Overlay& changes;  // reads see the operations before
  const PrefixHasher& hasher;
  absl::Time now;
  uint64_t next_etag;                                        // unique in the library for ever
  absl::Duration default_expiry = absl::InfiniteDuration();  // of states that come without a time
  uint64_t payload_part_bytes = kPayloadPartBytes;
  MutationEffect effect = {};

  uint64_t NewEtag() { return next_etag++; }
};

// Checks all that needs no look at the library: names, sizes, tokens, ids. INVALID_ARGUMENT names
// the field. Fills what the store fills in (payload_bytes, payload_checksum). May run on any
// thread.
absl::Status PrepareMutation(Mutation& mutation);

// Approximate memory of a queued mutation.
uint64_t QueuedBytes(const Mutation& mutation);

// Whether it adds states, sessions or tokens, which a disk that is nearly full has no room for.
bool AddsContent(const Mutation& mutation);

// Applies all operations to `context.changes`, or returns the status of the first that fails; then
// the changes are partial and must be dropped. The mutation was prepared; payloads are moved out.
absl::Status ApplyMutation(Mutation& mutation, ApplyContext& context);

// Deletes answers older than their lifetime, at most `limit`.
absl::Status DropOldAnswers(ApplyContext& context, int limit);

// Calls `visit` with the family and key of everything kept of a state beside record, payload and
// blobs.
void ForEachIndexKey(const StoredState& state, const PrefixHasher& hasher,
                     absl::FunctionRef<void(Family, std::string)> visit);
// Keeps what was sent as the content of `state`, in the place of what it has. Takes the payload.
absl::Status ReplaceContent(StoredState state, PutState& sent, ApplyContext& context);
// Stores the blobs that came with a state and are not stored yet, or are damaged.
absl::Status PutBlobs(const PutState& sent, ApplyContext& context);
// Removes what a state keeps of its blobs, and blobs that nothing needs any more.
absl::Status DropBlobs(const StateRecord& record, ApplyContext& context);
// Gives up payload and blobs of a state that is whole and can be read again.
absl::Status ArchiveContent(StoredState state, ApplyContext& context);
// Deletes a state that nothing needs, and thinned ones that were kept for it alone.
absl::Status DropState(const StoredState& state, ApplyContext& context);

// One per operation, in apply_state.cc, apply_thinning.cc, apply_retention.cc and apply_session.cc.
absl::Status Apply(PutState& operation, ApplyContext& context);  // takes the payload
absl::Status Apply(const UpdateState& operation, ApplyContext& context);
absl::Status Apply(const DeleteState& operation, ApplyContext& context);
absl::Status Apply(const ThinState& operation, ApplyContext& context);  // in apply_thinning.cc
absl::Status Apply(RecodeState& operation, ApplyContext& context);      // in apply_recoding.cc
absl::Status Apply(const ArchiveState& operation, ApplyContext& context);
absl::Status Apply(const ExpireState& operation, ApplyContext& context);
absl::Status Apply(const EvictState& operation, ApplyContext& context);
absl::Status Apply(const DeleteArchived& operation, ApplyContext& context);
absl::Status Apply(const DropStaleKey& operation, ApplyContext& context);
absl::Status Apply(const SetRef& operation, ApplyContext& context);
absl::Status Apply(const DeleteRef& operation, ApplyContext& context);
absl::Status Apply(const PutSession& operation, ApplyContext& context);
absl::Status Apply(const DeleteSession& operation, ApplyContext& context);
absl::Status Apply(const AppendLog& operation, ApplyContext& context);
absl::Status Apply(const TrimLog& operation, ApplyContext& context);
absl::Status Apply(const PutAnswer& operation, ApplyContext& context);

}  // namespace anabranch
