// Products of rows grouped by expert with the experts' matrices, in one launch (moe.cu uses it).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/activations.h"

namespace anabranch::kernels::cuda {

inline constexpr int32_t kMaxExperts = 512;
// Rows of a tile of many and of few rows. Tiles never hold rows of two experts.
inline constexpr int64_t kExpertTile = 64;
inline constexpr int64_t kSmallExpertTile = 16;

// y[i] = x[source[i] / divisor] W_e^T for the rows i of each expert e. Expert e's rows are
// [end[e-1], end[e]) and its tiles of tile_rows rows begin at tile tile_start[e]; both lie on the
// device.
struct ExpertGemm {
  struct Matrices {
    const void* of[kMaxExperts];  // by expert, [n, k]
  };
  int32_t experts = 0;
  int64_t rows = 0;       // of all experts
  int64_t tile_rows = 0;  // kExpertTile or kSmallExpertTile
  int64_t max_tiles = 0;  // at least tile_start[experts]
  const int32_t* end = nullptr;
  const int32_t* tile_start = nullptr;  // [experts + 1]
  const int32_t* source = nullptr;      // null: i itself
  int32_t divisor = 1;
  int64_t n = 0, k = 0;
  DType weights = DType::kFloat32;
  ConstActs x;
  int64_t x_stride = 0;
  Acts y;
  int64_t y_stride = 0;
};

absl::Status MultiplyByExpert(const ExpertGemm& gemm, const ExpertGemm::Matrices& matrices,
                              cudaStream_t stream);

}  // namespace anabranch::kernels::cuda
