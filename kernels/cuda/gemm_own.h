// The project's own matrix products, beside cuBLASLt's (gemm.cu chooses).
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "kernels/gemm.h"

namespace anabranch::kernels::cuda {

// Rows that SkinnyGemm takes at most.
inline constexpr int64_t kMaxSkinnyRows = 16;

// Whether SkinnyGemm can do it: bfloat16 weights, at most kMaxSkinnyRows rows, k a multiple of 8, x
// aligned to 16 bytes in every row. It rounds a float32 x to bfloat16.
bool FitsSkinnyGemm(const GemmParams& params);
absl::Status SkinnyGemm(const GemmParams& params, const Launch& launch);
// Whether a block takes 8 columns of y and not 16: where wide blocks are too few to give all
// multiprocessors the same work.
bool TakesNarrowBlocks(const GemmParams& params, const Launch& launch);

// Any sizes, strides and dtypes; float32 arithmetic on what is given, nothing rounded. Slow.
absl::Status TileGemm(const GemmParams& params, cudaStream_t stream);

}  // namespace anabranch::kernels::cuda
