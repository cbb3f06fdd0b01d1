// Contexts in a library, as the service keeps them.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine.h"
#include "statestore/state_store.h"

namespace anabranch::bench {

struct StoredContext {
  StateImage image;
  std::vector<int32_t> tokens;
};

// Commits it; the state's id.
absl::StatusOr<std::string> StoreContext(const Engine& engine, StateStore& store,
                                         StoredContext context);
// Reads everything that going on needs, checks of the library included, into the engine's memory.
absl::StatusOr<StoredContext> LoadContext(const Engine& engine, StateStore& store,
                                          const std::string& id);

}  // namespace anabranch::bench
