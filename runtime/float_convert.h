// Conversions between the element types of files and of kernels.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "runtime/safetensors.h"

namespace anabranch {

// Copies F32, BF16 or F16 elements as float32, exactly. INVALID_ARGUMENT for integer tensors.
// `out` has room for tensor.num_elements() values.
absl::Status ToFloats(const TensorView& tensor, float* out);

// Rounds each value to the nearest bfloat16 (ties to even) and keeps it as float32.
void RoundToBFloat16(float* values, int64_t count);

// The bfloat16 bits nearest to each value (ties to even).
void ToBFloat16(const float* values, int64_t count, uint16_t* out);

// One value: the bits of the nearest bfloat16, and the value of such bits.
uint16_t ToBFloat16(float value);
float FromBFloat16(uint16_t bits);

bool AllFinite(const float* values, int64_t count);
// The same of F32 or BF16 elements where they lie, aligned or not.
bool AllFinite(const TensorView& tensor);

}  // namespace anabranch
