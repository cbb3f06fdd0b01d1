// The small arrays of a batch (tokens, row starts, slots, pages) where the kernels read them. On
// the CPU that is the batch itself; for other devices they are packed and copied in one piece,
// always to the same place for a batch of the same counts, so that a recorded step can be replayed.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "runtime/device.h"
#include "runtime/model.h"
#include "runtime/step_context.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class StepInputs {
 public:
  explicit StepInputs(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  // Valid until the next Load; `batch` outlives that on the CPU. True if the place has moved.
  absl::StatusOr<bool> Load(const StepBatch& batch);

  // Rows, positions, pages, pending tokens, checkpoints and the longest context.
  void Describe(StepContext& step) const;
  const int32_t* tokens() const { return tokens_; }
  const int32_t* logit_rows() const { return logit_rows_; }
  const kernels::RowSampling* rules() const { return rules_; }

 private:
  absl::StatusOr<bool> Upload(const StepBatch& batch);
  absl::StatusOr<bool> Grow(size_t bytes);

  const std::shared_ptr<Device> device_;
  Buffer staging_, placed_;
  kernels::PackedRows rows_;
  kernels::Checkpoints checkpoints_;
  const int64_t* positions_ = nullptr;
  const int32_t *pages_ = nullptr, *page_start_ = nullptr, *tokens_ = nullptr,
                *logit_rows_ = nullptr;
  const int32_t *pending_before_ = nullptr, *pending_after_ = nullptr;
  int32_t deferring_ = 0;
  const kernels::RowSampling* rules_ = nullptr;
  int64_t max_context_ = 0;
};

}  // namespace anabranch
