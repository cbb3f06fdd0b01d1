// The Mamba-1 recurrence for what the product runs: bfloat16 activations and 16 states a channel.
// Part of SelectiveScan.
#pragma once

#include "kernels/selective_scan.h"

namespace anabranch::kernels::cuda {

// Whether shapes, dtypes and alignment are those of the kernel below.
bool TakesTiles(const SelectiveScanParams& params);
// The sequences of two rows and more; leaves the others alone.
absl::Status SelectiveTiled(const SelectiveScanParams& params, const Launch& launch);

}  // namespace anabranch::kernels::cuda
