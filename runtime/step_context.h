// One step of the engine, as mixers see it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/checkpoints.h"
#include "kernels/kernel_set.h"
#include "runtime/state_layout.h"
#include "runtime/tensor_memory.h"

namespace anabranch {

class StepProgress;

// The arrays lie where the kernels run.
struct StepContext {
  kernels::PackedRows rows;
  const int64_t* positions = nullptr;   // [seqs]: tokens read before this step
  const int32_t* pages = nullptr;       // KV pages of all sequences, by page_start
  const int32_t* page_start = nullptr;  // [seqs + 1]
  int64_t max_context = 0;              // no sequence is longer, rows of this step included
  const StateArrays* state = nullptr;
  // How many sequences defer writing their recurrent tensors, and the tokens that are pending
  // before and after the step (kernels::SsdPending); null: none does.
  int32_t deferring = 0;
  const int32_t *pending_before = nullptr, *pending_after = nullptr;
  kernels::Checkpoints checkpoints;
  const StateArrays* checkpoint_ring = nullptr;
  StepProgress* progress = nullptr;  // null: nobody asks
  const kernels::KernelSet* kernels = nullptr;
  kernels::Launch launch;
  Workspace* workspace = nullptr;  // what Run takes from it is freed by the caller

  // Where checkpoints of an entry go; null if there are none.
  template <typename T>
  T* Kept(size_t entry) const {
    return checkpoints.count == 0 ? nullptr : static_cast<T*>(checkpoint_ring->base[entry]);
  }
  int64_t KeptStride(size_t entry) const {
    return checkpoints.count == 0 ? 0 : checkpoint_ring->stride[entry];
  }
};

}  // namespace anabranch
