// One token of the Mamba-1 recurrence (selective_step.cu). Part of SelectiveScan.
#pragma once

#include "kernels/selective_scan.h"

namespace anabranch::kernels::cuda {

// Whether shapes and alignment are those of the kernel: 16 states a channel.
bool TakesSelectiveSteps(const SelectiveScanParams& params);
// The sequences of one row; leaves the others alone.
absl::Status SelectiveStep(const SelectiveScanParams& params, const Launch& launch);

}  // namespace anabranch::kernels::cuda
