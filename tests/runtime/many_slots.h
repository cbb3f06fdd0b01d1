// State of several slots, each with a run of KV pages, for tests that call a model without a pool.
#pragma once

#include <string>
#include <vector>

#include "runtime/state_layout.h"

namespace anabranch::testing {

class ManySlots {
 public:
  ManySlots(const StateLayout& layout, int slots, int pages_each)
      : layout_(layout), slots_(slots), pages_each_(pages_each) {
    for (const StateEntry& entry : layout.entries) {
      const int copies = entry.paged() ? slots * pages_each : slots;
      memory_.emplace_back(entry.bytes() * copies / sizeof(double) + 1, 0.0);
      arrays_.base.push_back(memory_.back().data());
      arrays_.stride.push_back(entry.stride());
    }
  }
  const StateArrays& arrays() const { return arrays_; }
  // Interleaved, so that a sequence's pages are never neighbours.
  int32_t Page(int slot, int index) const { return index * slots_ + slot; }

  // One slot's state in the order of SingleSequence, without the padding between entries.
  std::string Bytes(int slot) const {
    std::string out;
    for (size_t i = 0; i < layout_.entries.size(); ++i) {
      const StateEntry& entry = layout_.entries[i];
      const char* base = static_cast<const char*>(arrays_.base[i]);
      for (int page = 0; page < (entry.paged() ? pages_each_ : 1); ++page) {
        const int index = entry.paged() ? Page(slot, page) : slot;
        out.append(base + index * entry.bytes(), entry.bytes());
      }
    }
    return out;
  }

 private:
  const StateLayout& layout_;
  int slots_, pages_each_;
  std::vector<std::vector<double>> memory_;
  StateArrays arrays_;
};

}  // namespace anabranch::testing
