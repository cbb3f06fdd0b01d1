// When sequences that generate write their recurrent tensors (StateLayout::pending): at positions
// on a grid, where they are captured, and when a work lets go of them. So tokens are pending only
// while a work generates, and nobody else has to know.
//
// That these places follow from position, captures and the ends of works, and not from what else is
// in a step, is what makes a restored sequence go on with the bits of the one that stayed.
//
// Thread rule: the engine's thread.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "runtime/model.h"
#include "runtime/slot_pool.h"

namespace anabranch {

class DeferredWrites {
 public:
  DeferredWrites(std::shared_ptr<Model> model, std::shared_ptr<SlotPool> pool)
      : model_(std::move(model)), pool_(std::move(pool)), room_(pool_->layout().pending_room) {}

  bool on() const { return room_ > 0; }
  // How many tokens are pending after the next one; 0: all of them are written.
  int32_t After(const SlotRef& ref, bool captured) const {
    const bool writes = captured || (ref.position + 1) % (room_ + 1) == 0;
    return writes ? 0 : ref.pending + 1;
  }
  // Brings what is pending into the state. No step runs.
  absl::Status Fold(SlotRef& ref);

 private:
  const std::shared_ptr<Model> model_;
  const std::shared_ptr<SlotPool> pool_;
  const int32_t room_;
};

}  // namespace anabranch
