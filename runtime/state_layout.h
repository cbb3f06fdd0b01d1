// What a model keeps between tokens. Each mixer declares its slots; saving, restoring, forking,
// merging and inspecting states walk this list and know nothing about architectures.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace anabranch {

enum class StateKind : uint8_t {
  kWindow = 0,      // convolution window: the last inputs, oldest first. float32 in slots
  kRecurrent = 1,   // recurrent tensor. float32, or bfloat16 or int8 in models loaded so
  kCumulative = 2,  // T: sum of the step sizes dt since the first token. float64
  kKeys = 3,        // attention keys (after rotary embedding), in pages
  kValues = 4,      // attention values, in pages
};

// kInt8: codes, and behind all of them the scales of groups of neighbours (kernels/int8_state.h).
enum class StateDType : uint8_t { kFloat32 = 0, kBFloat16 = 1, kFloat64 = 2, kInt8 = 3 };

// Of an element; of an int8 tensor without its scales.
size_t StateDTypeBytes(StateDType dtype);
// Of a tensor of so many elements.
size_t TensorBytes(StateDType dtype, int64_t elements);

struct StateEntry {
  int32_t layer = 0;
  StateKind kind = StateKind::kRecurrent;
  // dtype of the elements in a slot or page. A bfloat16 model keeps windows as float32 values that
  // are exact bfloat16; its keys and values are stored as bfloat16.
  StateDType dtype = StateDType::kFloat32;
  // Shape of one sequence's tensor; for keys and values, of one page [tokens, heads, head_dim].
  std::vector<int64_t> shape;
  // dtype in a stored state, lossless: windows of a bfloat16 model are stored as bfloat16.
  StateDType stored_dtype = StateDType::kFloat32;
  // How the entry changes with time; what merging needs. The memory is the model's.
  // kCumulative: A < 0, for each of T's elements, or [T's elements, n] for each n of the recurrent
  // tensor's last dimension. While T grows by dt, the recurrent tensor decays by exp(A dt).
  const float* rates = nullptr;
  int64_t num_rates = 0;
  // kRecurrent: of how many rows of a sequence in a step on its checkpoints can be packed
  // (kernels/packed_state.h); 0: never.
  int32_t packs_from = 0;
  // kKeys: the rotary embedding of the keys; dimension 0: none.
  int32_t rotary_dim = 0;
  double rope_theta = 0;

  int64_t num_elements() const;
  size_t bytes() const { return TensorBytes(dtype, num_elements()); }
  // From one slot's tensor to the next, as kernels count it: in elements; in int8, bytes.
  int64_t stride() const { return static_cast<int64_t>(bytes() / StateDTypeBytes(dtype)); }
  bool paged() const { return kind == StateKind::kKeys || kind == StateKind::kValues; }
};

inline constexpr int32_t kKvPageTokens = 256;

struct StateLayout {
  std::vector<StateEntry> entries;  // ascending layer, then kind

  // What slots have beside their state: tokens that are not in the recurrent tensor yet, while a
  // sequence defers writing it (kernels/ssd_scan.h). Only layer, dtype and shape count. Whoever
  // copies or changes a state has it folded first, so it is part of no image.
  std::vector<StateEntry> pending;
  int32_t pending_room = 0;  // tokens that they hold; 0: no sequence can defer

  bool has_kv() const;
  // StateEntry::packs_from of all recurrent tensors; 0 if one of them cannot be packed.
  int32_t packs_from() const;
  size_t slot_bytes() const;     // of all entries that are not paged
  size_t pending_bytes() const;  // of a slot, beside that
  size_t kv_page_bytes() const;  // one page of all paged entries
};

// Device arrays behind a SlotPool: one per entry, [slots or pages, shape...], dense.
struct StateArrays {
  std::vector<void*> base;      // by entry
  std::vector<int64_t> stride;  // StateEntry::stride
  // The same of StateLayout::pending; empty where nothing defers.
  std::vector<void*> pending_base;
  std::vector<int64_t> pending_stride;
};

}  // namespace anabranch
