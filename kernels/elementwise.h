// Row-wise helpers around the linear layers.
#pragma once

#include "kernels/checkpoints.h"
#include "kernels/launch.h"

namespace anabranch::kernels {

// y[r] = table[ids[r]] * scale. `table` is row-major [vocab, width] of `dtype`.
struct EmbedParams {
  int64_t rows = 0, width = 0;
  const int32_t* ids = nullptr;
  const void* table = nullptr;
  DType dtype = DType::kFloat32;
  float scale = 1;
  Acts y;  // [rows, width], dense
  bool round_to_bf16 = false;
};
absl::Status Embed(const EmbedParams& params, const Launch& launch);

// y = activation(gate) * up, row by row: the middle of a gated MLP; without `up` that of a plain
// one. kGelu is the exact form, x * (1 + erf(x / sqrt(2))) / 2; kRelu2 is max(x, 0)^2.
enum class Activation : uint8_t { kSilu, kGelu, kRelu2 };
struct GatedMulParams {
  int64_t rows = 0, width = 0;
  Activation activation = Activation::kSilu;
  ConstActs gate;
  ConstActs up;           // null: y = activation(gate). y may be gate
  int64_t in_stride = 0;  // of both inputs
  Acts y;
  int64_t y_stride = 0;
  bool round_to_bf16 = false;
};
absl::Status GatedMul(const GatedMulParams& params, const Launch& launch);

// x += scale * y; with round_to_bf16 the product and the sum are rounded.
struct AddScaledParams {
  int64_t rows = 0, width = 0;
  Acts x;
  ConstActs y;
  int64_t x_stride = 0, y_stride = 0;
  float scale = 1;
  bool round_to_bf16 = false;
};
absl::Status AddScaled(const AddScaledParams& params, const Launch& launch);

// y = x * scale, and each column by its own factor if `columns` is given.
struct ScaleParams {
  int64_t rows = 0, width = 0;
  ConstActs x;  // y may be x
  int64_t x_stride = 0;
  float scale = 1;
  const float* columns = nullptr;  // [width] or null
  Acts y;
  int64_t y_stride = 0;
  bool round_to_bf16 = false;
};
absl::Status Scale(const ScaleParams& params, const Launch& launch);

// y[r] = x[row[r]], or x[r] without `row`. x and y do not overlap; their dtypes may differ on CUDA.
struct CopyRowsParams {
  int64_t rows = 0, width = 0;
  ConstActs x;
  int64_t x_stride = 0;
  const int32_t* row = nullptr;  // [rows] or null
  Acts y;
  int64_t y_stride = 0;
};
absl::Status CopyRows(const CopyRowsParams& params, const Launch& launch);

// sums[i] += the direction x / |x| of each of sequence i's rows, one row after the other.
struct SumDirectionsParams {
  PackedRows rows;
  int64_t width = 0;
  ConstActs x;                       // [rows, width], dense
  float* sums = nullptr;             // [num_seqs, width]
  Checkpoints checkpoints;           // by number, not by place:
  float* checkpoint_sums = nullptr;  // [checkpoints, width]
};
absl::Status SumDirections(const SumDirectionsParams& params, const Launch& launch);

}  // namespace anabranch::kernels
