#include "runtime/state_layout.h"

#include <algorithm>

#include "kernels/int8_state.h"

namespace anabranch {

size_t StateDTypeBytes(StateDType dtype) {
  switch (dtype) {
    case StateDType::kFloat32:
      return 4;
    case StateDType::kBFloat16:
      return 2;
    case StateDType::kFloat64:
      return 8;
    case StateDType::kInt8:
      return 1;
  }
  return 0;
}

size_t TensorBytes(StateDType dtype, int64_t elements) {
  if (dtype == StateDType::kInt8) return kernels::Int8StateBytes(elements);
  return elements * StateDTypeBytes(dtype);
}

int64_t StateEntry::num_elements() const {
  int64_t elements = 1;
  for (int64_t dim : shape) elements *= dim;
  return elements;
}

bool StateLayout::has_kv() const {
  for (const StateEntry& entry : entries) {
    if (entry.paged()) return true;
  }
  return false;
}

int32_t StateLayout::packs_from() const {
  int32_t most = 0;
  for (const StateEntry& entry : entries) {
    if (entry.kind != StateKind::kRecurrent) continue;
    if (entry.packs_from == 0) return 0;
    most = std::max(most, entry.packs_from);
  }
  return most;
}

size_t StateLayout::slot_bytes() const {
  size_t total = 0;
  for (const StateEntry& entry : entries) {
    if (!entry.paged()) total += entry.bytes();
  }
  return total;
}

size_t StateLayout::pending_bytes() const {
  size_t total = 0;
  for (const StateEntry& entry : pending) total += entry.bytes();
  return total;
}

size_t StateLayout::kv_page_bytes() const {
  size_t total = 0;
  for (const StateEntry& entry : entries) {
    if (entry.paged()) total += entry.bytes();
  }
  return total;
}

}  // namespace anabranch
