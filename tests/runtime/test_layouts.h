// State layouts of small made-up models, with every kind of entry.
#pragma once

#include "runtime/state_layout.h"

namespace anabranch::testing {

// Two Mamba-like layers around one attention layer. With `bf16`, windows are float32 values that
// are exact bfloat16 (stored as such) and keys and values are bfloat16.
inline StateLayout HybridLayout(bool bf16 = false) {
  const StateDType half = bf16 ? StateDType::kBFloat16 : StateDType::kFloat32;
  StateLayout layout;
  for (int32_t layer : {0, 2}) {
    layout.entries.push_back({layer, StateKind::kWindow, StateDType::kFloat32, {5, 3}, half});
    layout.entries.push_back(
        {layer, StateKind::kRecurrent, StateDType::kFloat32, {2, 3, 4}, StateDType::kFloat32});
    layout.entries.push_back(
        {layer, StateKind::kCumulative, StateDType::kFloat64, {2}, StateDType::kFloat64});
    if (layer == 0) {
      layout.entries.push_back({1, StateKind::kKeys, half, {kKvPageTokens, 1, 2}, half});
      layout.entries.push_back({1, StateKind::kValues, half, {kKvPageTokens, 1, 2}, half});
    }
  }
  return layout;
}

// The same without attention.
inline StateLayout RecurrentLayout() {
  StateLayout layout;
  for (const StateEntry& entry : HybridLayout().entries) {
    if (!entry.paged()) layout.entries.push_back(entry);
  }
  return layout;
}

}  // namespace anabranch::testing
