// States of one lineage taken apart, without reading anything again: the state of a span alone, a
// state without a span, and a state that has aged.
//
// Over a span a layer maps its state affinely, S -> P S + H, with P = exp(A (T_end - T_begin)). So,
// with every state aged to the time of the last one (P over T, per layer and head or channel):
//   span    H = S_end - P S_begin                     T = T_end - T_begin
//   forget  S = S_end - P H = S_end - P S_b + P S_a   T = T_end: the span's time has passed
//   decay   S = exp(A r T) S                          T = (1 + r) T: time passes, nothing is read
// Each is exact in one layer. For a whole model they are approximations, because the inputs of
// upper layers after a span were computed with the span in front.
//
// Windows hold the last inputs of what is left, zeros before its beginning. Keys and values: those
// of the tokens that are left, rotated keys turned to the places where they come to stand; decay
// leaves them, because attention does not forget with time.
#pragma once

#include "absl/status/statusor.h"
#include "runtime/state_image.h"

namespace anabranch {

// All images are whole states with this layout. `begin` may be null: nothing read. `end` goes on
// from `begin`, and has read more (INVALID_ARGUMENT).
absl::StatusOr<StateImage> SpanState(const StateLayout& layout, const StateImage* begin,
                                     const StateImage& end);

// `end` without what was read between `begin` and `span_end`, which it goes on from or is.
// INVALID_ARGUMENT if nothing is left.
absl::StatusOr<StateImage> ForgetSpan(const StateLayout& layout, const StateImage* begin,
                                      const StateImage& span_end, const StateImage& end);

// Aged by `ratio` >= 0 of the time that the state covers: m / L for m tokens after L.
absl::StatusOr<StateImage> DecayState(const StateLayout& layout, const StateImage& state,
                                      double ratio);

}  // namespace anabranch
