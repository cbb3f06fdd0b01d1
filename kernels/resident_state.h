// The part of a recurrent state that an item of a CPU scan works on, as float32: the slot itself,
// or a copy of a slot in bfloat16 or int8 that is rounded back.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "kernels/activations.h"
#include "kernels/int8_state.h"
#include "kernels/state_rounding.h"

namespace anabranch::kernels {

class ResidentState {
 public:
  // Parts of `cells` elements. `scales`: of a state in int8, SsdScanParams::state_scales.
  ResidentState(const Acts& state, int64_t scales, int64_t cells)
      : state_(state),
        scales_(scales),
        cells_(cells),
        copy_(state.dtype == DType::kFloat32 ? 0 : cells) {}

  // The part that begins at element `offset` of the sequence's state, whose first is at `slot` of
  // the array. Valid until the next Open.
  float* Open(int64_t slot, int64_t offset) {
    slot_ = slot, offset_ = offset;
    if (copy_.empty()) return floats_ = static_cast<float*>(state_.data) + slot + offset;
    if (state_.dtype == DType::kInt8) {
      const int8_t* codes = CodesOf(state_, slot);
      const uint16_t* scales = ScalesOf(state_, slot);
      for (int64_t i = 0; i < cells_; i += kInt8Group) {
        Int8ToFloats(codes + i, scales[i / kInt8Group], copy_.data() + i);
      }
    } else {
      const auto* from = static_cast<const uint16_t*>(state_.data) + slot + offset;
      for (int64_t i = 0; i < cells_; ++i) copy_[i] = std::bit_cast<float>(uint32_t{from[i]} << 16);
    }
    return floats_ = copy_.data();
  }
  // As it is, to the same place of another slot.
  void Keep(const Acts& to, int64_t slot, uint32_t key) const {
    if (copy_.empty()) {
      std::copy_n(floats_, cells_, static_cast<float*>(to.data) + slot + offset_);
    } else if (to.dtype == DType::kInt8) {
      KeepInt8(to, slot, key);
    } else {
      auto* rounded = static_cast<uint16_t*>(to.data) + slot + offset_;
      for (int64_t i = 0; i < cells_; ++i) {
        rounded[i] = RoundElement(floats_[i], key, static_cast<uint32_t>(offset_ + i));
      }
    }
  }
  // Back to where it came from.
  void Close(uint32_t key) const {
    if (!copy_.empty()) Keep(state_, slot_, key);
  }

 private:
  // Where this part of a slot in int8 has its codes, a byte an element, and its scales, one for
  // each group.
  int8_t* CodesOf(const Acts& state, int64_t slot) const {
    return static_cast<int8_t*>(state.data) + slot + offset_;
  }
  uint16_t* ScalesOf(const Acts& state, int64_t slot) const {
    return reinterpret_cast<uint16_t*>(static_cast<char*>(state.data) + slot + scales_) +
           offset_ / kInt8Group;
  }
  // A group's noise is that of its place in the sequence's tensor, so that how items are cut does
  // not show.
  void KeepInt8(const Acts& to, int64_t slot, uint32_t key) const {
    int8_t* codes = CodesOf(to, slot);
    uint16_t* scales = ScalesOf(to, slot);
    for (int64_t i = 0; i < cells_; i += kInt8Group) {
      const auto first = static_cast<uint32_t>((offset_ + i) / 4);
      const auto noise = [&](uint32_t quad) { return RoundingBits(key, first + quad); };
      scales[i / kInt8Group] = FloatsToInt8(floats_ + i, noise, codes + i);
    }
  }

  const Acts state_;
  const int64_t scales_, cells_;
  std::vector<float> copy_;  // empty: the state is float32
  // What is open: the slot's own elements or the copy, and where they are in the array.
  float* floats_ = nullptr;
  int64_t slot_ = 0, offset_ = 0;
};

// What the state of sequence `seq` is rounded by after `rows` of its rows.
template <class Params>
uint32_t RoundingKeyAfter(const Params& p, int32_t seq, int64_t rows) {
  if (p.state.dtype == DType::kFloat32) return 0;
  return RoundingKey(p.rounding_seed, p.positions[seq] + rows);
}

// For checks of parameters.
template <class Params>
bool HasState(const Params& p) {
  return p.state.data != nullptr && (p.state.dtype == DType::kFloat32 || p.positions != nullptr) &&
         HasScales(p);
}
template <class Params>
bool HasCheckpoints(const Params& p) {
  return p.checkpoint_state.data != nullptr && p.checkpoint_t != nullptr &&
         p.checkpoint_state.dtype == p.state.dtype;
}

}  // namespace anabranch::kernels
