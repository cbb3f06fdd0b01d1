// Random inputs of SsdScan for tests that run it on both sides.
#pragma once

#include <utility>
#include <vector>

#include "kernels/ssd_scan.h"
#include "tests/kernels/cuda/cuda_testing.h"
#include "tests/kernels/cuda/state_slots.h"

namespace anabranch::kernels::testing {

struct SsdShape {
  int32_t heads, head_dim, state_dim, groups;
};

struct SsdInputs {
  SsdShape shape;
  DType dtype;  // of the activations, which hold nothing that it cannot
  std::vector<int64_t> lengths;
  Sequences x, b, c, dt;
  Floats a, d, dt_bias;
  int64_t slot_stride;  // of S: a little more than a slot

  SsdInputs(SsdShape s, std::vector<int64_t> n, DType type, Random& random)
      : shape(s),
        dtype(type),
        lengths(std::move(n)),
        slot_stride(int64_t{s.heads} * s.head_dim * s.state_dim + kSlotPad) {
    const auto make = [&](int64_t width, float scale) {
      Sequences out = Sequences::Make(lengths, width, random, scale);
      for (Floats& of : out.of) of = KeptAs(dtype, of);
      return out;
    };
    x = make(s.heads * s.head_dim, 1);
    b = make(s.groups * s.state_dim, 1);
    c = make(s.groups * s.state_dim, 1);
    dt = make(s.heads, 2);
    for (int i = 0; i < s.heads; ++i) a.push_back(-random.Uniform(0.01f, 4) * random.Uniform(0, 1));
    d = random.Normals(s.heads);
    dt_bias = random.Normals(s.heads);
  }

  StateSlots SlotsOf(DType state_dtype) const { return {state_dtype, slot_stride - kSlotPad}; }

  // Rows, sizes, and what every row of a launch needs, in `memory`.
  SsdScanParams ParamsOf(const Packing& packing, Memory::Where where, Memory& memory) const {
    SsdScanParams p;
    p.rows = memory.PutRows(packing);
    if (where == Memory::Where::kHost) p.rows = packing.rows();
    p.heads = shape.heads, p.head_dim = shape.head_dim;
    p.state_dim = shape.state_dim, p.groups = shape.groups;
    p.a = memory.Put(a), p.d = memory.Put(d), p.dt_bias = memory.Put(dt_bias);
    p.positions = memory.Put(packing.position), p.rounding_seed = 3;
    p.state_slot_stride = slot_stride;
    p.state_scales = slot_stride - kSlotPad;
    return p;
  }
};

}  // namespace anabranch::kernels::testing
