// Several engines as one: each runs the same model with the same numerics on a device of its own
// and holds its own sequences. New and restored sequences go where the least work is; a fork stays
// beside what it shares its state with, unless that engine has no slot free for its first write and
// another has: then it gets a copy there, bit for bit.
//
// Thread rule: as Engine. A call for a sequence is answered by the engine that holds it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine.h"

namespace anabranch {

struct EngineMember {
  std::string name;  // of the device, for messages
  std::unique_ptr<Engine> engine;
};

// INVALID_ARGUMENT: no members, or two whose models or numerics differ, which would make a state
// depend on where its tokens ran.
absl::StatusOr<std::unique_ptr<Engine>> JoinEngines(std::vector<EngineMember> members);

// Counts of `more` on top of those of `sum`; sizes of slots and pages are those of `more`.
void AddStats(const EngineStats& more, EngineStats* sum);

}  // namespace anabranch
