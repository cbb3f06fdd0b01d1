// Norms of many rows at once (norm_rows.cu), for norm.cu.
#pragma once

#include "kernels/launch.h"
#include "kernels/norm.h"

namespace anabranch::kernels::cuda {

// Whether all arrays, and the parts of rows in them, can be read in vectors.
bool TakesVectors(const GatedRmsNormParams& params);
// The same, and enough rows, a norm that comes after the gate, if there is one, and dtypes and
// sizes that are the fast way's.
bool TakesManyRows(const GatedRmsNormParams& params);
// Of a launch that was checked. A null z means no gate.
absl::Status NormManyRows(const GatedRmsNormParams& params, const Launch& launch, const char* name);

}  // namespace anabranch::kernels::cuda
