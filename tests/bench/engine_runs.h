// Running the engine to completion from a benchmark.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/engine.h"

namespace anabranch::bench {

// `model_dir`: a model folder, or the name of a shape (shapes.h) with random weights.
absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(const std::string& model_dir,
                                                   kernels::DType dtype, int threads);
// For reads of up to `length` tokens, each in one step if it wants, two at a time.
EngineOptions OptionsForReadsOf(int64_t length);
// Pseudo-random ids below `vocab`, the same every time.
std::vector<int32_t> SomeTokens(int64_t count, int64_t vocab);

absl::Status ReadAll(Engine& engine, const SequencePtr& sequence, std::vector<int32_t> tokens);
// Generates `count` greedy tokens on every sequence at once, with captures on a grid if
// `checkpoint_every` > 0; the images are dropped as they come.
absl::Status GenerateAll(Engine& engine, const std::vector<SequencePtr>& sequences, int64_t count,
                         int64_t checkpoint_every = 0, StateCodec codec = StateCodec::kExact);

}  // namespace anabranch::bench
