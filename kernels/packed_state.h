// How a scan leaves a float32 recurrent tensor in a place of a ring if it is to be stored in 8
// bits: the stored form itself (docs/STATE_FORMAT.md, encoding 3) and behind it, for each head,
// what the form is off by. In a place there is room for it, since it takes little more than a
// quarter of the tensor.
#pragma once

#include <cstdint>

namespace anabranch::kernels {

// Sums of squares over a head: of what decoding it is off by, and of its values.
struct PackedMeasure {
  float off = 0, norm = 0;
  int32_t refused = 0;  // 1: a value is not finite or too large, and the head's bytes are useless
  int32_t unused = 0;
};

// Offsets in a place's tensor [heads, head_dim, state_dim].
struct PackedPlaces {
  // Exponents of columns (int8), scales of rows (the upper halves of floats), codes (int8);
  int64_t scales = 0, codes = 0, bytes = 0;
  // then the measures, aligned, a PackedMeasure a head.
  int64_t measures = 0;

#ifdef __CUDACC__
  __host__ __device__
#endif
      constexpr PackedPlaces(int64_t heads, int64_t head_dim, int64_t state_dim)
      : scales(heads * state_dim),
        codes(scales + heads * head_dim * 2),
        bytes(codes + heads * head_dim * state_dim),
        measures((bytes + 15) / 16 * 16) {
  }
};

}  // namespace anabranch::kernels
