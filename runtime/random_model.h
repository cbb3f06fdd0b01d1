// A model of a given shape with random weights: for measuring shapes and for tests, without files.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/model.h"

namespace anabranch {

// `config` is the text of a config.json. The weights go through the same checks and the same
// loading as those of a folder. They are the same every time, and of the sizes that training
// starts from: norms near 1, steps dt between 0.001 and 0.1, so that activations and states stay
// finite over any number of tokens. Matrices share one block of random numbers, each beginning
// elsewhere in it, so host memory is that of the largest tensor, and nothing is known of the
// quality of such a model's text. INVALID_ARGUMENT for a config that ParseModelConfig refuses, and
// the errors of Model::Load.
absl::StatusOr<std::unique_ptr<Model>> MakeRandomModel(absl::string_view config,
                                                       const LoadOptions& options);

}  // namespace anabranch
