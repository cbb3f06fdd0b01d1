// Model::Load on a device that is open already: for tests, which watch what a model asks of it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/device.h"
#include "runtime/model.h"

namespace anabranch {

// options.device and options.num_threads do not count.
absl::StatusOr<std::unique_ptr<Model>> LoadModelOn(std::shared_ptr<Device> device,
                                                   const std::string& dir,
                                                   const LoadOptions& options);

}  // namespace anabranch
