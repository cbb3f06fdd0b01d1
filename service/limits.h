// What one call may ask for. Flags of `anabranchd serve` set the configurable ones; the others are
// fixed because clients are written against them.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace anabranch {

// Largest message either way: also the default of gRPC clients.
inline constexpr int kMaxMessageBytes = 4 << 20;
inline constexpr int kMaxConcurrentStreams = 100;
inline constexpr int kMaxLabels = 64;
inline constexpr int kMaxLabelKeyBytes = 128, kMaxLabelValueBytes = 1024;
inline constexpr int kMaxStopStrings = 16, kMaxStopStringBytes = 256;
inline constexpr int kDefaultPageSize = 100, kMaxPageSize = 1000;
inline constexpr int kDefaultGraphStates = 1000, kMaxGraphStates = 5000;
inline constexpr int64_t kMaxTokensPerListing = 500000;
inline constexpr int32_t kDefaultGenerateTokens = 256;
inline constexpr int32_t kMaxTopLogprobs = 20;
inline constexpr int32_t kMaxForks = 1024;
inline constexpr int32_t kDefaultSearchHits = 10, kMaxSearchHits = 100;
inline constexpr int32_t kDefaultRerank = 16, kMaxRerank = 64;
inline constexpr int64_t kMaxSearchTextBytes = 16384;
inline constexpr int kMaxMergeInputs = 64;
inline constexpr double kMaxMergeWeight = 1000;
inline constexpr int64_t kMaxDecayTokens = int64_t{1} << 40;

// Calls waiting for a worker beyond this are refused with RESOURCE_EXHAUSTED.
inline constexpr int kMaxQueuedCalls = 256;

struct Limits {
  int64_t max_context_tokens = 131072;
  // Tokens that one Append, Score or history may carry.
  int64_t max_append_tokens = 131072;
  // Tokens that one Generate may ask for.
  int32_t max_generate_tokens = 16384;
  // Caps on the client's deadline, which may be absent: quick calls, calls that run the model once,
  // and streams.
  absl::Duration quick_deadline = absl::Minutes(1);
  absl::Duration model_deadline = absl::Minutes(10);
  absl::Duration stream_deadline = absl::Hours(1);
  // Of calls that read or copy a whole library.
  absl::Duration maintenance_deadline = absl::Hours(240);
};

}  // namespace anabranch
