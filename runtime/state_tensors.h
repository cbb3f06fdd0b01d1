// The tensors of a stored state as numbers, for what computes states from states.
#pragma once

#include <cstring>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/state_image.h"

namespace anabranch {

// Copies, because a payload keeps no alignment.
template <typename T>
std::vector<T> ReadSegment(const StateImage& image, const StateSegment& segment) {
  std::vector<T> values(segment.bytes / sizeof(T));
  std::memcpy(values.data(), image.payload.data() + segment.offset, segment.bytes);
  return values;
}
// Zeros for no image: of a context that has read nothing.
template <typename T>
std::vector<T> ReadSegment(const StateImage* image, const StateSegment& segment) {
  if (image != nullptr) return ReadSegment<T>(*image, segment);
  return std::vector<T>(segment.bytes / sizeof(T));
}
template <typename T>
void WriteSegment(const std::vector<T>& values, const StateSegment& segment, StateImage& image) {
  std::memcpy(image.payload.data() + segment.offset, values.data(), segment.bytes);
}

// The same for tensors of float32, bfloat16 or int8: to float32, and to the nearest.
std::vector<float> ReadFloats(const StateImage& image, const StateSegment& segment);
void WriteFloats(const std::vector<float>& values, const StateSegment& segment, StateImage& image);
// A part of a tensor of float32 or bfloat16.
void LoadFloats(const char* from, StateDType dtype, int64_t count, float* to);
void StoreFloats(const float* from, StateDType dtype, int64_t count, char* to);

// How the recurrent tensor of a layer decays. Its elements are `groups` (heads or channels) of
// `size`, contiguous; element i of group g decays by exp(rates[g * num_rates + i % num_rates] dt)
// while T[g] grows by dt.
struct RecurrentDecay {
  StateSegment t;  // T of the same layer, float64 [groups]
  const float* rates = nullptr;
  int64_t groups = 0, size = 0, num_rates = 0;
};

// For a segment of kind kRecurrent. INTERNAL if the layout does not say how it decays.
absl::StatusOr<RecurrentDecay> DecayOf(const StateLayout& layout, const StateHeader& header,
                                       const StateSegment& segment);

}  // namespace anabranch
