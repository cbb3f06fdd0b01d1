// States with weights on a command line: NAME or NAME=WEIGHT.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace anabranch::cli {

struct Weighted {
  std::string id;  // a state or a ref
  double weight = 1;
};

// A usage error if the weight is no number above 0.
absl::StatusOr<Weighted> ParseWeighted(const std::string& text);

}  // namespace anabranch::cli
