// What the library keeps: states, refs and sessions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/time/time.h"
#include "statestore/base/state_codec.h"

namespace anabranch {

using Labels = absl::btree_map<std::string, std::string>;

// How a state came to be: read on from its parent, or computed from its parents' states.
enum class StateOperation : uint8_t {
  kAppend = 0,
  kMerge = 1,
  kSpan = 2,
  kForget = 3,
  kDecay = 4,
  kSwap = 5,  // what a session has read, on another base
};

// Why a state was captured; a later one is the stronger reason. On disk.
enum class CaptureReason : uint8_t {
  kUnknown = 0,
  kIdle = 1,  // its session left the engine
  kGrid = 2,  // a position of the checkpoint grid
  kTurn = 3,  // the end of what a call read or generated
  kFork = 4,  // sessions went on from here, or histories part here
  kMark = 5,  // a client asked for it
};

// What a state is. Its id is derived from content; see StateId().
struct StateRecord {
  std::string tenant, id;
  std::string fingerprint, numerics_profile;
  std::vector<std::string> parents;  // ids; empty for a state read from nothing
  StateOperation operation = StateOperation::kAppend;
  std::string operation_params;                      // canonical text; part of the id
  int64_t token_count = 0;                           // since the root
  std::vector<int32_t> span_tokens;                  // tokens since the parent; computed: all
  std::string header;                                // opaque: the runtime's serialised header
  uint64_t payload_bytes = 0, payload_checksum = 0;  // filled by the store on Put
  uint64_t payload_part_bytes = 0;                   // so too, see payloads.h; 0: it is one value
  std::vector<std::string> blob_hashes;              // shared blobs this state needs, in order
  uint64_t blob_bytes = 0;
  absl::Time created;  // unset (the epoch): now
  // Mutable: changed by UpdateState, not part of the id.
  Labels labels;
  absl::Time expires = absl::InfiniteFuture();
  bool pinned = false;
  uint64_t etag = 0;                             // changes with every update
  CaptureReason kind = CaptureReason::kUnknown;  // of several reasons the strongest
  // The content (header, payload, blobs) was given up, see ThinState. Lineage and tokens stay, so
  // the position is reached by replay from the nearest ancestor that is whole.
  bool thinned = false;
  // How the content is kept; changed by RecodeState and ArchiveState, not part of the id. kArchive:
  // there is none, but unlike a thinned state it stays listed, keeps its users and its header, and
  // is read again from its tokens when it is needed.
  StateCodec codec = StateCodec::kExact;
  bool keep_codec = false;      // the client chose it: not for the library's owner to change
  uint64_t exact_bytes = 0;     // of payload and blobs if the codec were exact; 0: it is
  float codec_error = 0;        // relative, as measured when it was encoded
  uint32_t lossy_restores = 0;  // in its past; 0: a pure function of model and tokens
};

// Whether its content can be read.
inline bool IsWhole(const StateRecord& state) {
  return !state.thinned && state.codec != StateCodec::kArchive;
}
// Whether its content is, bit for bit, what reading its tokens gives.
inline bool IsExact(const StateRecord& state) {
  return !state.thinned && state.codec == StateCodec::kExact && state.lossy_restores == 0;
}

// "st-" and 40 hex digits: SHA-256 over tenant, fingerprint, profile, parents, operation and its
// parameters, and the span's tokens.
std::string StateId(const StateRecord& record);

struct RefRecord {
  std::string tenant, name, state_id;
  absl::Time updated;
  uint64_t etag = 0;
};

// Which states a session captures by itself, and how many of them it keeps.
struct CheckpointPolicy {
  bool turn_ends = true;        // where a call ends
  int64_t every = 0;            // tokens between grid positions; 0: as the server does, -1: none
  bool keep_grid = false;       // all of the grid; else it is thinned logarithmically
  bool thin_turn_ends = false;  // turn ends as well
  // Of the states that may be thinned; 0: no limit.
  int64_t max_states = 0, max_bytes = 0;
  // Of what is captured; not kArchive. Unset: as the server does.
  std::optional<StateCodec> codec;

  friend bool operator==(const CheckpointPolicy&, const CheckpointPolicy&) = default;
};

// A state that is merged into the core of a session.
struct AuxState {
  std::string name;  // as the client named it: a ref, or the state itself
  std::string state_id;
  double weight = 1;

  friend bool operator==(const AuxState&, const AuxState&) = default;
};

// What a session reads on from: a core with auxiliary states merged in.
struct SessionBase {
  std::string core;  // the state it was opened with; empty: none
  std::vector<AuxState> aux;
  std::string state;     // the two together, or the core itself; an ancestor of the head, or empty
  int64_t position = 0;  // token count of `state`

  friend bool operator==(const SessionBase&, const SessionBase&) = default;
};

// A session: its head state and where its token log stands. The log holds tokens after the head.
struct SessionRecord {
  std::string tenant, id;
  std::string ref;            // moved by Commit; may be empty
  std::string head_state;     // empty: nothing captured yet
  int64_t head_position = 0;  // token count of the head state
  std::string fingerprint;    // of the model it runs on
  Labels labels;
  absl::Time created, updated;
  CheckpointPolicy checkpoints;
  int64_t thin_from = 0;  // states before this position are not this session's to thin
  SessionBase base;
};

}  // namespace anabranch
