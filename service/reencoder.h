// Moves states that get old and cold to smaller codecs in the background: exact to near to compact,
// and at last to the archive. Off unless an age is given.
//
// A state's age counts from its creation or its last use since the server started, whichever is
// later. Left alone are pinned states, those whose codec a client chose, those that a loaded
// session stands on, and computed ones, which are never archived. Each is one commit, safe beside
// everything else; what fails is tried again in the next round.
#pragma once

#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "service/reencoding_options.h"
#include "service/service_context.h"

namespace anabranch {

// What a state of this age should be in; nothing: it stays. `state` is whole.
std::optional<StateCodec> CodecForAge(const ReencodingOptions& options, const StateRecord& state,
                                      absl::Duration age);

// Works on a thread of its own from construction to destruction. `service` outlives it.
class Reencoder {
 public:
  Reencoder(const ServiceContext* service, const ReencodingOptions& options);
  ~Reencoder();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace anabranch
