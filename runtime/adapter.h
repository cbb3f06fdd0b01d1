// A low-rank addition to a projection, y += B (A x) with few rows in A. Layers that share a
// projection's weights differ by it.
#pragma once

#include <string>
#include <vector>

#include "runtime/mixer.h"

namespace anabranch {

class Adapter {
 public:
  // A is `prefix`0.weight [rank, in_width], B is `prefix`1.weight [out_width, rank].
  static void ListTensors(const std::string& prefix, int64_t rank, int64_t in_width,
                          int64_t out_width, std::vector<ExpectedTensor>& out);
  static absl::StatusOr<Adapter> Load(const std::string& prefix, WeightReader& weights);

  // Rows of the step, `x_stride` and `y_stride` elements apart.
  absl::Status Run(const StepContext& step, ConstActs x, int64_t x_stride, Acts y,
                   int64_t y_stride) const;

 private:
  Linear down_, up_;
};

}  // namespace anabranch
