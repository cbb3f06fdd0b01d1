// What a device can do at most, measured in the same run as what is compared with it; and the least
// time that a model's work takes at those rates.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/model.h"

namespace anabranch::bench {

struct Ceilings {
  double copy_bytes = 0;    // bytes a second within the device, read plus written
  double to_device = 0;     // bytes a second from pinned host memory
  double to_host = 0;       // and back
  double matrix_flops = 0;  // multiplications and additions a second of a large matrix product
};

// On random data; medians of a few runs. The matrix product is of the compute dtype.
absl::StatusOr<Ceilings> MeasureCeilings(Device& device, kernels::DType dtype);

// One token of each of `batch` sequences of `context` tokens: every weight is read once, every
// state read and written.
double DecodeFloorSeconds(const Model& model, kernels::DType dtype, int64_t batch, int64_t context,
                          const Ceilings& ceilings);
// `tokens` of one sequence, logits after the last.
double PrefillFloorSeconds(const Model& model, int64_t tokens, const Ceilings& ceilings);

}  // namespace anabranch::bench
