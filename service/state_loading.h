// A stored state made ready for the engine: record, payload and blobs from the library, put
// together as the image that the engine restores.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "runtime/engine.h"
#include "runtime/model.h"
#include "runtime/state_image.h"
#include "statestore/state_store.h"

namespace anabranch {

struct LoadedState {
  StateRecord record;
  StateImage image;             // exact: of a lossy state what decoding it gives
  std::vector<int32_t> tokens;  // from the root
  int64_t bytes = 0;            // read from the library
};

// Gives a block of at least so many bytes, which a large payload is read into.
using PayloadBlock = absl::FunctionRef<absl::StatusOr<Buffer>(size_t bytes)>;

// Whether two records of one state tell of the same stored bytes: recoding changes its form.
bool SameForm(const StateRecord& a, const StateRecord& b);

// FAILED_PRECONDITION unless the state can be resumed: by the model that made it (MODEL_MISMATCH,
// names both), and with its content (STATE_THINNED).
absl::Status CheckModel(const StateRecord& record, const Model& model);

// NOT_FOUND; FAILED_PRECONDITION for an archived state, which state_points.h reads again; DATA_LOSS
// names what is damaged. Blocks on the library.
absl::StatusOr<LoadedState> LoadState(StateStore& store, const Model& model,
                                      const std::string& tenant, const std::string& id,
                                      PayloadBlock block = Buffer::Allocate);

// The same in a form that the engine restores; what the image was restored from then counts as one
// lossy restore of the sequence alone.
absl::StatusOr<LoadedState> LoadToRestore(StateStore& store, const Engine& engine,
                                          const std::string& tenant, const std::string& id,
                                          PayloadBlock block);

// The same without decoding: the image as it is stored.
absl::StatusOr<LoadedState> LoadStored(StateStore& store, const Model& model,
                                       const std::string& tenant, const std::string& id,
                                       PayloadBlock block = Buffer::Allocate);

// The state that a state id or a ref's name stands for. NOT_FOUND (STATE_NOT_FOUND,
// REF_NOT_FOUND). Blocks.
absl::StatusOr<StateRecord> ResolveState(StateStore& store, const std::string& tenant,
                                         const std::string& id_or_ref);
// The same for a request's own fields: state_id must be an id, ref_name must not (INVALID_ARGUMENT
// names the field).
absl::StatusOr<StateRecord> ResolveStateId(StateStore& store, const std::string& tenant,
                                           const std::string& state_id);
absl::StatusOr<StateRecord> ResolveRefName(StateStore& store, const std::string& tenant,
                                           const std::string& ref_name);

// Visits a state and its ancestors along first parents, newest first, until the visitor returns
// false. Blocks.
absl::Status VisitLineage(StateStore& store, const std::string& tenant, const std::string& id,
                          absl::FunctionRef<bool(const StateRecord&)> visit);

}  // namespace anabranch
