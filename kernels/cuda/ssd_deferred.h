// Steps that do not write S, and folding what is pending into it (SsdPending). Part of SsdScan.
#pragma once

#include "kernels/ssd_scan.h"

namespace anabranch::kernels::cuda {

// The sequences of the launch that defer; leaves the others alone. `params` has been checked.
absl::Status SsdDeferred(const SsdScanParams& params, const Launch& launch);
// Ahead of it: sets `pending.share` of those sequences, and keeps dt and B of the launch's tokens.
absl::Status SsdShares(const SsdScanParams& params, const Launch& launch);

}  // namespace anabranch::kernels::cuda
