// Slots of recurrent states for tests that keep them as floats, slot after slot with kSlotPad
// floats between two: on their way into a launch they become what its state is kept in, and back.
// What is rounded differs on the two sides by a unit at most; here is what a unit is.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/int8_state.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels::testing {

inline constexpr int64_t kSlotPad = 8;

// Slots of `elements`.
struct StateSlots {
  DType dtype = DType::kFloat32;
  int64_t elements = 0;

  // From slot to slot in a launch, as kernels count it. In int8 16 bytes more than is needed, and
  // readable in vectors.
  int64_t stride() const {
    if (dtype != DType::kInt8) return elements + kSlotPad;
    return (Int8StateBytes(elements) + 15) / 16 * 16 + 16;
  }
  size_t Count(const Floats& values) const {
    return values.size() / static_cast<size_t>(elements + kSlotPad);
  }

  Acts Put(const Floats& values, Memory& memory) const {
    if (dtype != DType::kInt8) return memory.PutState(values, dtype);
    std::vector<int8_t> slots(Count(values) * static_cast<size_t>(stride()), 99);
    for (size_t slot = 0; slot < Count(values); ++slot) {
      const float* from = values.data() + slot * static_cast<size_t>(elements + kSlotPad);
      int8_t* codes = slots.data() + slot * static_cast<size_t>(stride());
      const auto nearest = [](uint32_t) { return 0x80808080u; };
      for (int64_t i = 0; i < elements; i += kInt8Group) {
        const uint16_t scale = FloatsToInt8(from + i, nearest, codes + i);
        std::memcpy(codes + elements + i / kInt8Group * 2, &scale, sizeof(scale));
      }
    }
    return {memory.Put(slots), dtype};
  }
  // `count` floats. What lies between slots comes back only if it is not int8.
  Floats Get(const Memory& memory, ConstActs from, size_t count) const {
    if (dtype != DType::kInt8) return memory.GetActs(from, count);
    Floats values(count, 0.0f);
    const auto slots = memory.Get(static_cast<const int8_t*>(from.data),
                                  Count(values) * static_cast<size_t>(stride()));
    for (size_t slot = 0; slot < Count(values); ++slot) {
      const int8_t* codes = slots.data() + slot * static_cast<size_t>(stride());
      float* to = values.data() + slot * static_cast<size_t>(elements + kSlotPad);
      for (int64_t i = 0; i < elements; i += kInt8Group) {
        uint16_t scale;
        std::memcpy(&scale, codes + elements + i / kInt8Group * 2, sizeof(scale));
        Int8ToFloats(codes + i, scale, to + i);
      }
      for (int64_t i = Int8StateBytes(elements); i < stride(); ++i) {
        EXPECT_EQ(codes[i], 99) << "written behind slot " << slot;
      }
    }
    return values;
  }

  // Adds `roundings` units to the tolerances of what a kernel rounded. In bfloat16 a unit is of the
  // element's size, `size`, in int8 of the largest of its group.
  void AddRoundings(const Floats& size, double roundings, std::vector<double>& tolerance) const {
    if (dtype == DType::kBFloat16) {
      for (size_t i = 0; i < size.size(); ++i) {
        tolerance[i] += roundings * 2 * kBf16Unit * std::abs(size[i]);
      }
    }
    if (dtype != DType::kInt8) return;
    for (size_t slot = 0; slot < Count(size); ++slot) {
      const size_t at = slot * static_cast<size_t>(elements + kSlotPad);
      for (size_t i = at; i < at + static_cast<size_t>(elements); i += kInt8Group) {
        float most = 0;
        for (size_t n = i; n < i + kInt8Group; ++n) most = std::max(most, std::abs(size[n]));
        for (size_t n = i; n < i + kInt8Group; ++n) tolerance[n] += roundings * 1.02 * most / 127;
      }
    }
  }
};

}  // namespace anabranch::kernels::testing
