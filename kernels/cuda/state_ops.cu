// Operations on whole slots beside merging (state_merge.cu). All are bound by memory: a slot copy
// reads and writes 168 MB for Mamba-2 2.7B, 80 us.
#include <cmath>

#include "kernels/cuda/start.h"
#include "kernels/cuda/state_tables.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 256;

struct Terms {
  int32_t count, output;
  int32_t slot[kMaxTerms];
  double sign[kMaxTerms];
  double aging;
  bool from_zero;
};

// Blocks: (elements, 1, tensors). Every thread reads all terms of its elements before it writes, so
// the output may be one of them.
__global__ void __launch_bounds__(kThreads)
    CombineKernel(const __grid_constant__ Table<RecurrentTensor> table,
                  const __grid_constant__ Terms terms) {
  const RecurrentTensor& tensor = table.of[blockIdx.z];
  const int64_t count = tensor.groups * tensor.size;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += step) {
    const int64_t group = i / tensor.size;
    const int64_t rate = (i - group * tensor.size) % tensor.num_rates;
    const double a = tensor.rates[group * tensor.num_rates + rate];
    const double* t = tensor.t + group;
    const double now = t[terms.slot[0] * tensor.t_slot_stride] * (1 + terms.aging);
    double sum = 0;
    for (int k = 0; k < terms.count; ++k) {
      const double factor =
          terms.sign[k] * exp(a * (now - t[terms.slot[k] * tensor.t_slot_stride]));
      sum += factor * tensor.state[terms.slot[k] * tensor.slot_stride + i];
    }
    tensor.state[terms.output * tensor.slot_stride + i] = static_cast<float>(sum);
  }
}

// T, after the tensors. Blocks: (groups, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    CombineTimes(const __grid_constant__ Table<RecurrentTensor> table,
                 const __grid_constant__ Terms terms) {
  const RecurrentTensor& tensor = table.of[blockIdx.z];
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (group >= tensor.groups) return;
  double* t = tensor.t + group;
  double now = t[terms.slot[0] * tensor.t_slot_stride] * (1 + terms.aging);
  for (int k = 1; terms.from_zero && k < terms.count; ++k) {
    now += terms.sign[k] * t[terms.slot[k] * tensor.t_slot_stride];
  }
  t[terms.output * tensor.t_slot_stride] = now;
}

struct Offsets {
  int64_t of[kTableSize];  // where a tensor's groups begin in the result
};

// Blocks: (groups, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    CompareKernel(const __grid_constant__ Table<RecurrentTensor> table,
                  const __grid_constant__ Offsets offsets, int32_t a, int32_t b, double* sums) {
  const RecurrentTensor& tensor = table.of[blockIdx.z];
  const int64_t group = blockIdx.x;
  if (group >= tensor.groups) return;
  const float* in_a = tensor.state + a * tensor.slot_stride + group * tensor.size;
  const float* in_b = tensor.state + b * tensor.slot_stride + group * tensor.size;
  double sum[4] = {};
  for (int64_t i = threadIdx.x; i < tensor.size; i += kThreads) {
    const double x = in_a[i], y = in_b[i];
    sum[0] += x * x;
    sum[1] += y * y;
    sum[2] += x * y;
    sum[3] += (x - y) * (x - y);
  }
  for (int j = 0; j < 4; ++j) {
    const double all = BlockSum<kThreads>(sum[j]);
    if (threadIdx.x == 0) sums[(offsets.of[blockIdx.z] + group) * 4 + j] = all;
  }
}

constexpr int kDeep = 4;  // 16-byte copies of a thread on their way at once

// Blocks: (parts, 1, blocks of memory). sizeof(Word) bytes a copy.
template <class Word>
__global__ void __launch_bounds__(kThreads)
    CopyKernel(const __grid_constant__ Table<BlockCopy> table) {
  const BlockCopy& block = table.of[blockIdx.z];
  const auto* in = static_cast<const Word*>(block.from);
  auto* out = static_cast<Word*>(block.to);
  const int64_t count = block.bytes / static_cast<int64_t>(sizeof(Word));
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (; i + (kDeep - 1) * step < count; i += kDeep * step) {
    Word words[kDeep];
#pragma unroll
    for (int j = 0; j < kDeep; ++j) words[j] = in[i + j * step];
#pragma unroll
    for (int j = 0; j < kDeep; ++j) out[i + j * step] = words[j];
  }
  for (; i < count; i += step) out[i] = in[i];
}

// Blocks: (parts, 1, blocks of memory).
template <class Word>
__global__ void __launch_bounds__(kThreads)
    FillKernel(const __grid_constant__ Table<BlockCopy> table, Word word) {
  const BlockCopy& block = table.of[blockIdx.z];
  auto* out = static_cast<Word*>(block.to);
  const int64_t count = block.bytes / static_cast<int64_t>(sizeof(Word));
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += step) {
    out[i] = word;
  }
}

// Blocks: (parts, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    MeanKernel(const __grid_constant__ Table<SlotBytes> table,
               const __grid_constant__ SlotList inputs, double weight_sum, int32_t output) {
  const SlotBytes& tensor = table.of[blockIdx.z];
  const int64_t count = tensor.bytes / static_cast<int64_t>(sizeof(float));
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const auto at = [&](int32_t slot) {
    return reinterpret_cast<float*>(static_cast<char*>(tensor.base) + slot * tensor.slot_stride);
  };
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += step) {
    double sum = 0;
    for (int k = 0; k < inputs.count; ++k) sum += inputs.weight[k] * at(inputs.of[k])[i];
    at(output)[i] = static_cast<float>(sum / weight_sum);
  }
}

int64_t MostBytes(const Table<SlotBytes>& table, unsigned count) {
  int64_t most = 0;
  for (unsigned i = 0; i < count; ++i) most = std::max(most, table.of[i].bytes);
  return most;
}

// Of the blocks of memory of one launch.
struct BlockShape {
  int64_t most = 0;  // bytes
  bool wide = true;  // whole and aligned words of 16 bytes
  dim3 grid(unsigned count) const {
    const int64_t each = int64_t{kThreads} * kDeep * (wide ? 16 : 1);
    return dim3(static_cast<unsigned>(CeilDiv(most, each)), 1, count);
  }
};
BlockShape ShapeOf(const Table<BlockCopy>& table, unsigned count) {
  BlockShape shape;
  for (unsigned i = 0; i < count; ++i) {
    const BlockCopy& block = table.of[i];
    shape.most = std::max(shape.most, block.bytes);
    shape.wide =
        shape.wide && IsAligned(block.from) && IsAligned(block.to) && block.bytes % 16 == 0;
  }
  return shape;
}

int64_t MostGroups(const Table<RecurrentTensor>& table, unsigned count) {
  int64_t most = 0;
  for (unsigned i = 0; i < count; ++i) most = std::max(most, table.of[i].groups);
  return most;
}

}  // namespace

absl::Status CombineSlots(const CombineSlotsParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, false, "CombineSlots"); !s.ok()) return s;
  const bool ok = !p.slots.empty() && p.slots.size() <= kMaxTerms &&
                  p.slots.size() == p.signs.size() && p.signs[0] == 1 && p.aging >= 0 &&
                  std::isfinite(p.aging) && p.output >= 0 &&
                  std::all_of(p.slots.begin(), p.slots.end(), [](int32_t s) { return s >= 0; });
  if (!ok) return Require(false, "CombineSlots", "bad terms, aging or slots");
  Terms terms = {static_cast<int32_t>(p.slots.size()), p.output, {}, {}, p.aging, p.from_zero};
  std::copy(p.slots.begin(), p.slots.end(), terms.slot);
  std::copy(p.signs.begin(), p.signs.end(), terms.sign);
  const cudaStream_t stream = launch.cuda->stream();
  return ForTables(p.tensors, [&](const Table<RecurrentTensor>& table, unsigned count, size_t) {
    int64_t elements = 0;
    for (unsigned i = 0; i < count; ++i) {
      elements = std::max(elements, table.of[i].groups * table.of[i].size);
    }
    const int64_t groups = MostGroups(table, count);
    if (elements == 0) return absl::OkStatus();
    const auto blocks = static_cast<unsigned>(CeilDiv(elements, 4 * kThreads));
    StartOn(stream, CombineKernel, dim3(blocks, 1, count), kThreads, 0, table, terms);
    const dim3 grid(static_cast<unsigned>(CeilDiv(groups, kThreads)), 1, count);
    StartOn(stream, CombineTimes, grid, kThreads, 0, table, terms);
    return LaunchStatus("CombineSlots");
  });
}

absl::Status CompareSlots(const CompareSlotsParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, false, "CompareSlots"); !s.ok()) return s;
  if (p.a < 0 || p.b < 0 || p.sums == nullptr) {
    return Require(false, "CompareSlots", "a negative slot, or nowhere to put the sums");
  }
  int64_t offset = 0;
  return ForTables(p.tensors, [&](const Table<RecurrentTensor>& table, unsigned count, size_t) {
    Offsets offsets = {};
    for (unsigned i = 0; i < count; ++i) {
      offsets.of[i] = offset;
      offset += table.of[i].groups;
    }
    const int64_t groups = MostGroups(table, count);
    if (groups == 0) return absl::OkStatus();
    StartOn(launch.cuda->stream(), CompareKernel, dim3(static_cast<unsigned>(groups), 1, count),
            kThreads, 0, table, offsets, p.a, p.b, p.sums);
    return LaunchStatus("CompareSlots");
  });
}

absl::Status CopyBlocks(const CopyBlocksParams& p, cudaStream_t stream) {
  return ForTables(p.blocks, [&](const Table<BlockCopy>& table, unsigned count, size_t) {
    const BlockShape shape = ShapeOf(table, count);
    if (shape.most == 0) return absl::OkStatus();
    if (shape.wide) {
      StartOn(stream, CopyKernel<uint4>, shape.grid(count), kThreads, 0, table);
    } else {
      StartOn(stream, CopyKernel<char>, shape.grid(count), kThreads, 0, table);
    }
    return LaunchStatus("CopyBlocks");
  });
}

absl::Status FillBlocks(const FillBlocksParams& p, cudaStream_t stream) {
  return ForTables(p.blocks, [&](const Table<BlockCopy>& table, unsigned count, size_t) {
    const BlockShape shape = ShapeOf(table, count);
    if (shape.most == 0) return absl::OkStatus();
    if (shape.wide) {
      const uint32_t word = p.byte * 0x01010101u;
      StartOn(stream, FillKernel<uint4>, shape.grid(count), kThreads, 0, table,
              make_uint4(word, word, word, word));
    } else {
      StartOn(stream, FillKernel<uint8_t>, shape.grid(count), kThreads, 0, table, p.byte);
    }
    return LaunchStatus("FillBlocks");
  });
}

absl::Status MeanSlots(const MeanSlotsParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, false, "MeanSlots"); !s.ok()) return s;
  const bool ok = !p.inputs.empty() && p.inputs.size() <= kMaxMergeInputs && p.output >= 0 &&
                  (p.weights.empty() || p.weights.size() == p.inputs.size()) &&
                  std::all_of(p.inputs.begin(), p.inputs.end(), [](int32_t s) { return s >= 0; });
  if (!ok) return Require(false, "MeanSlots", "1 to 64 inputs, as many weights or none");
  SlotList inputs = {};
  double weight_sum = 0;
  inputs.count = static_cast<int32_t>(p.inputs.size());
  for (size_t k = 0; k < p.inputs.size(); ++k) {
    inputs.of[k] = p.inputs[k];
    inputs.weight[k] = p.weights.empty() ? 1 : p.weights[k];
    weight_sum += inputs.weight[k];
  }
  if (!(weight_sum > 0)) return Require(false, "MeanSlots", "weights must be positive");
  return ForTables(p.tensors, [&](const Table<SlotBytes>& table, unsigned count, size_t) {
    const int64_t most = MostBytes(table, count);
    if (most == 0) return absl::OkStatus();
    const dim3 grid(static_cast<unsigned>(CeilDiv(most, int64_t{16} * kThreads)), 1, count);
    StartOn(launch.cuda->stream(), MeanKernel, grid, kThreads, 0, table, inputs, weight_sum,
            p.output);
    return LaunchStatus("MeanSlots");
  });
}

}  // namespace anabranch::kernels::cuda
