// Damaged states made whole by reading their tokens again with the model.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "service/service_context.h"

namespace anabranch {

// Rebuilds what is damaged of a state and stores it, if the result has the checksums that its
// record has; nothing is replaced otherwise. OK also if nothing was damaged. Blocks on library and
// engine. Errors say why it cannot be repaired: its record is gone and with it its tokens
// (DATA_LOSS), it was computed or belongs to another model (FAILED_PRECONDITION), reading gave
// other bytes (DATA_LOSS).
// `any`: the context of any model; the state's own does the work.
absl::Status RepairState(const ServiceContext& any, const Call& call, const std::string& tenant,
                         const std::string& id);

}  // namespace anabranch
