// The CPU's part of SsdScan for sequences that defer (SsdPending), and of SsdFold: for tests and
// for engines on a CPU that are asked for it. Plain loops: a CPU gains nothing by deferring.
#pragma once

#include "kernels/ssd_scan.h"

namespace anabranch::kernels {

// INVALID_ARGUMENT if what defers, or is to be folded, does not fit together.
absl::Status CheckPending(const SsdScanParams& params, int32_t rows_each, const char* kernel);

// Items are (sequence, head), as in SsdScan. Leaves alone what does not defer.
void StepDeferred(const SsdScanParams& params, int64_t begin, int64_t end);

}  // namespace anabranch::kernels
