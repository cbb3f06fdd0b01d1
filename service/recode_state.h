// A stored state kept in another codec, in one commit. To a less exact one what is stored is
// encoded again; to a more exact one the state is read again from its tokens.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "anabranch/v1/resources.pb.h"
#include "service/service_context.h"

namespace anabranch {

struct Recoding {
  StateCodec codec = StateCodec::kExact;
  std::optional<uint64_t> etag;
  bool keep = false;  // record that a client chose the codec
  bool cold = false;  // ABORTED if a session that is loaded stands on the state
};

// Adds what changes the state to `mutation`, under a hold that must last until it is committed;
// nothing if it is in that codec. FAILED_PRECONDITION: a thinned state (STATE_THINNED), another
// model (MODEL_MISMATCH), or what only replay could give of a computed state
// (STATE_NOT_REBUILDABLE). DATA_LOSS if what was read again is not what was archived. Blocks, and
// may run the engine.
absl::StatusOr<SessionManager::Hold> StageRecoding(const ServiceContext& service, const Call& call,
                                                   const StateRecord& state,
                                                   const Recoding& recoding, Mutation* mutation,
                                                   v1::Usage* usage);

}  // namespace anabranch
