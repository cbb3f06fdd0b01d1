// The Mamba-2 recurrence in its chunked dual form on tensor cores (bfloat16 operands, float32 sums
// and states), for runs of rows that are long enough to pay for it. Part of SsdScan.
#pragma once

#include "kernels/ssd_scan.h"

namespace anabranch::kernels::cuda {

// Whether the device has the shared memory for the tensor-core kernels: 222 KB a block, as
// datacenter GPUs from Hopper on.
bool HasRoomForChunks(const Launch& launch);
// The same, and shapes, dtypes and alignment are those of the kernels.
bool TakesChunks(const SsdScanParams& params, const Launch& launch);
// The sequences of more than `longer_than` rows; leaves the others alone. Uses scratch.
absl::Status SsdChunked(const SsdScanParams& params, int32_t longer_than, const Launch& launch);

}  // namespace anabranch::kernels::cuda
