// The changes of the library: operations, and mutations that are applied whole or not at all.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/variant.h"
#include "statestore/key_schema.h"
#include "statestore/records.h"

namespace anabranch {

// One operation of a mutation. Preconditions are checked in order inside the writer; the first that
// fails fails the whole mutation with the status named.
// Idempotent: a state that exists stays as it is (OK); only damaged parts are replaced, and a form
// without blobs by a more exact one. NOT_FOUND
// names a parent or a blob that is neither sent nor stored. A thinned or archived record, sent
// without content, keeps a place in a lineage: it changes nothing of a state that is there.
struct PutState {
  StateRecord record;
  std::string payload;
  std::vector<std::string> blobs;  // by record.blob_hashes; an empty string: already stored
};
struct UpdateState {  // NOT_FOUND; ABORTED if etag is set and differs
  std::string tenant, id;
  std::optional<uint64_t> etag;
  std::optional<Labels> labels;
  std::optional<absl::Time> expires;
  std::optional<bool> pinned;
};
struct DeleteState {  // NOT_FOUND; FAILED_PRECONDITION while a ref, session or child needs it
  std::string tenant, id;
};
// Gives up the content of a state and keeps its place in the lineage, with its tokens. Does nothing
// unless that is all that anything needs of it: the state is an append with exactly one child, an
// append too, and has no ref, session, label or pin. Does nothing either if it does not exist.
struct ThinState {
  std::string tenant, id;
};
// Replaces a state's content by another form of it: header, payload, blobs and what the record says
// about them. Everything else stays. NOT_FOUND; ABORTED if etag is set and differs, or unless the
// payload stored now has the checksum `replaces` (0: the state is archived); FAILED_PRECONDITION if
// it is thinned.
struct RecodeState {
  PutState put;
  uint64_t replaces = 0;
  std::optional<uint64_t> etag;
};
// Gives up the content of a state that can be read again: tokens, header, refs, sessions, labels
// and place stay. NOT_FOUND; ABORTED if etag is set and differs; FAILED_PRECONDITION for a computed
// state, which no tokens lead to. Does nothing to one that is archived or thinned.
struct ArchiveState {
  std::string tenant, id;
  std::optional<uint64_t> etag;
};
// Deletes or archives a state that has expired, as retention.h says, or looks at it again later.
// Does nothing if it does not exist, has not expired or is pinned.
struct ExpireState {
  std::string tenant, id;
  absl::Time entry;            // when the index of expiry times says to look
  absl::Time now, look_again;  // if it is needed
};
// Archives a state whose content nothing needs (retention.h), or else does nothing.
struct EvictState {
  std::string tenant, id;
};
// Deletes a state that is archived and that nothing needs, or else does nothing.
struct DeleteArchived {
  std::string tenant, id;
};
// Deletes an edge or index entry that leads nowhere, or a payload's value that no record names
// (garbage.h), or else does nothing.
struct DropStaleKey {
  Family family;
  std::string key;
  uint64_t bytes = 0;  // of the value of a payload, for MutationEffect
};
// NOT_FOUND if the state does not exist; FAILED_PRECONDITION if it is thinned; ABORTED if expected
// differs.
struct SetRef {
  std::string tenant, name, state_id;
  // Unset: any. Empty string: the ref must not exist yet. Otherwise: the state it must point to.
  std::optional<std::string> expected_state;
};
struct DeleteRef {
  std::string tenant, name;
};
// Creates or replaces; NOT_FOUND if head_state does not exist, FAILED_PRECONDITION if it is
// thinned. The log of a new session starts at head_position; a replaced session keeps its log. The
// store sets `updated`, and `created` if unset.
struct PutSession {
  SessionRecord record;
  bool must_not_exist = false;  // ALREADY_EXISTS
};
struct DeleteSession {  // also its log. NOT_FOUND
  std::string tenant, id;
};
struct AppendLog {  // FAILED_PRECONDITION unless `position` is where the log ends
  std::string tenant, session;
  int64_t position = 0;  // index of the first of the tokens
  std::vector<int32_t> tokens;
};
// Drops tokens before `position`. Past the log's end only up to the session's head_position, and
// the log goes on there; FAILED_PRECONDITION beyond.
struct TrimLog {
  std::string tenant, session;
  int64_t position = 0;
};
// Remembers the answer to a request id for a day, so that a retry gets the same answer.
// ALREADY_EXISTS if it is remembered already: a repeat that races with the first changes nothing.
struct PutAnswer {
  std::string tenant, request_id, answer;
};

using Operation =
    absl::variant<PutState, UpdateState, DeleteState, ThinState, RecodeState, ArchiveState,
                  ExpireState, EvictState, DeleteArchived, DropStaleKey, SetRef, DeleteRef,
                  PutSession, DeleteSession, AppendLog, TrimLog, PutAnswer>;

// What operations that decide for themselves did.
struct MutationEffect {
  int64_t deleted = 0, archived = 0;  // states
  int64_t stale_keys = 0, orphaned_blobs = 0;
  int64_t orphaned_payloads = 0, orphaned_payload_bytes = 0;  // values
  int64_t bytes = 0;  // as TenantUse counts them: less than 0 if some were freed
};

struct Mutation {
  std::vector<Operation> operations;
  // Filled before the commit is answered; meaningful if that was OK. May be null.
  std::shared_ptr<MutationEffect> effect = nullptr;
};

}  // namespace anabranch
