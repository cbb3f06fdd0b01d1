// Slots: fixed-size arrays that hold the state of live sequences, reference counted and copied on
// write. A sequence owns one slot for its windows, recurrent tensors and T, and a list of KV pages.
// Forking shares both; the first step of either side copies the slot and the last, partly filled
// page. Slots and pages are zeroed when handed out; with Options::poison_released they are filled
// with NaN when released, so that a use after release shows in the next logits.
//
// Thread rule: all members may be called from any thread; the caller makes sure that nobody steps,
// captures or restores the same sequence at the same time (the engine does).
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/device.h"
#include "runtime/state_layout.h"

namespace anabranch {

// Where a sequence's state lies. Copying it does not copy state; use SlotPool.
struct SlotRef {
  int32_t slot = -1;
  std::vector<int32_t> pages;  // KV pages in token order
  int64_t position = 0;        // tokens read
  int32_t pending = 0;         // the last of them that are beside the state (StateLayout::pending)
};

class SlotPool {
 public:
  struct Options {
    int32_t num_slots = 64;
    int32_t num_kv_pages = 1024;  // ignored without attention
#ifdef NDEBUG
    bool poison_released = false;
#else
    bool poison_released = true;
#endif
  };
  struct Usage {
    int32_t slots_total = 0, slots_used = 0, pages_total = 0, pages_used = 0;
    int32_t slots_owed = 0;                 // more, if each of those who share one writes to it
    size_t slot_bytes = 0, page_bytes = 0;  // of a slot: with what it has beside its state
  };

  // Reserves memory for all on `device` (null: the CPU, where the system commits it when a slot or
  // page is first used). INVALID_ARGUMENT for a layout or option out of range, RESOURCE_EXHAUSTED
  // without memory.
  static absl::StatusOr<std::unique_ptr<SlotPool>> Create(const StateLayout& layout,
                                                          const Options& options,
                                                          std::shared_ptr<Device> device = nullptr);
  virtual ~SlotPool() = default;

  // An empty, zeroed slot. RESOURCE_EXHAUSTED when all are in use (never evicts by itself).
  virtual absl::StatusOr<SlotRef> Acquire() = 0;
  // The same with what a slot held before: the caller writes all of it.
  virtual absl::StatusOr<SlotRef> AcquireUnset() = 0;
  // Another reference to the same state, O(pages), no payload copied.
  virtual SlotRef Share(const SlotRef& ref) = 0;
  // Gives up the reference and clears `ref`; an empty ref is left as it is.
  virtual void Release(SlotRef& ref) = 0;
  // Makes `ref` writable and gives it pages for `new_tokens` more tokens: copies what is shared.
  // RESOURCE_EXHAUSTED leaves `ref` as it was. The caller moves ref.position after writing.
  virtual absl::Status PrepareWrite(SlotRef& ref, int64_t new_tokens) = 0;

  virtual Device& device() = 0;
  virtual const StateArrays& arrays() const = 0;
  virtual const StateLayout& layout() const = 0;
  virtual Usage usage() const = 0;

  // Where one entry of one sequence lies in the device's memory, for capture and restore: entry e
  // of slot, or of page p of the sequence. Device::Copy reads and writes it.
  virtual absl::Span<uint8_t> SlotBytes(const SlotRef& ref, int entry) = 0;
  virtual absl::Span<uint8_t> PageBytes(const SlotRef& ref, int entry, int page_index) = 0;
};

}  // namespace anabranch
