#include "runtime/deferred_writes.h"

#include "statestore/base/status_macros.h"

namespace anabranch {

absl::Status DeferredWrites::Fold(SlotRef& ref) {
  if (ref.pending == 0) return absl::OkStatus();
  const int32_t row_start[] = {0, 0}, none = 0;
  StepBatch batch;
  batch.row_start = row_start;
  batch.slots = absl::MakeSpan(&ref.slot, 1);
  batch.positions = absl::MakeSpan(&ref.position, 1);
  batch.pending_before = absl::MakeSpan(&ref.pending, 1);
  batch.pending_after = absl::MakeSpan(&none, 1);
  ANABRANCH_RETURN_IF_ERROR(model_->Fold(batch, pool_->arrays()));
  ref.pending = 0;
  return absl::OkStatus();
}

}  // namespace anabranch
