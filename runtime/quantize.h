// The loops of the lossy codecs: float32 to integers with scales and back, vectorised.
// Element-wise: an element's code depends on its own value and scales alone. Pointers to integers
// need no alignment. A code c stands for c * scale, and for matrices c * (row * column[j]).
#pragma once

#include <cstdint>

namespace anabranch {

inline constexpr int32_t kMaxCode16 = 32767, kMaxCode8 = 127;

// The largest magnitude; infinite or NaN if any value is not finite. 0 for none.
float MaxAbs(const float* values, int64_t count);
// max[j] = the larger of max[j] and |values[j]| * factor.
void MaxAbsInto(const float* values, int64_t count, float factor, float* max);
// The largest |values[j]| * factors[j].
float MaxAbsTimes(const float* values, const float* factors, int64_t count);
double SumOfSquares(const float* values, int64_t count);

// codes[i] = values[i] / scale, to nearest, within the range of the codes. Returns the sum of the
// squares of what decoding them is off by.
double Quantize16(const float* values, int64_t count, float scale, void* codes);
void Dequantize16(const void* codes, int64_t count, float scale, float* values);

// A row of a matrix with scales for rows and columns. inverse[j] is 1 / column[j].
double Quantize8(const float* values, int64_t count, float row, const float* column,
                 const float* inverse, void* codes);
void Dequantize8(const void* codes, int64_t count, float row, const float* column, float* values);

// The smallest normal float of at most `bits` significant bits that is at least `value`, which is
// not negative, and finite. Its reciprocal is finite, too.
float ScaleAbove(float value, int bits);

}  // namespace anabranch
