// Whether a batch can be run, before anything of a state is touched.
#pragma once

#include "absl/status/status.h"
#include "runtime/model.h"
#include "runtime/state_layout.h"

namespace anabranch {

// INVALID_ARGUMENT if a batch does not fit together, has ids outside the vocabulary, too few pages
// or arrays of another layout: nothing has been touched then.
absl::Status CheckBatch(const StepBatch& batch, const StateArrays& state, const StateLayout& layout,
                        int64_t vocab, size_t logits_size);

// The same for a batch that is to be folded (Model::Fold).
absl::Status CheckFold(const StepBatch& batch, const StateArrays& state, const StateLayout& layout);

}  // namespace anabranch
