#include "runtime/state_layout.h"

#include <algorithm>

namespace anabranch {

size_t StateDTypeBytes(StateDType dtype) {
  switch (dtype) {
    case StateDType::kFloat32:
      return 4;
    case StateDType::kBFloat16:
      return 2;
    case StateDType::kFloat64:
      return 8;
  }
  return 0;
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
