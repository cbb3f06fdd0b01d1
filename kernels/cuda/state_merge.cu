// Merging resident states in one pass: n inputs and the ancestor read, one written, (n + 2) times a
// state's bytes. That is the floor; for 8 states of 168 MB 1.7 GB, 0.4 ms.
//
// With one rate a group (Mamba-2 heads) a block computes its group's factors once and then streams
// its part of the group, four elements a thread. With a rate for each of a few elements (Mamba-1
// channels) a thread computes the factors of its own elements: n exponentials and n^2 / 2 products,
// small beside reading n floats from memory.
#include <cmath>

#include "kernels/cuda/start.h"
#include "kernels/cuda/state_tables.h"

namespace anabranch::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPart = 4096;  // elements of a group that a block takes at least
constexpr int kMaxNodes = kMaxMergeInputs / 2;

// Gauss-Legendre on [0, 1]: exact for the polynomials of degree n - 1 that the weights integrate.
struct Quadrature {
  int count;
  double node[kMaxNodes], weight[kMaxNodes];
};

struct Merge {
  SlotList inputs;
  int32_t ancestor, output;
  SlotMerge method;
  SlotMergeNorm norm;
  double weight_sum;
  Quadrature quadrature;
};

// P_n(x) and its derivative, by the three-term recurrence.
void Legendre(int n, double x, double* value, double* derivative) {
  double before = 1;
  *value = x;
  for (int i = 2; i <= n; ++i) {
    const double next = ((2 * i - 1) * x * *value - (i - 1) * before) / i;
    before = *value;
    *value = next;
  }
  *derivative = n * (x * *value - before) / (x * x - 1);
}

Quadrature MakeQuadrature(int inputs) {
  constexpr double kPi = 3.14159265358979323846;
  Quadrature q = {};
  q.count = std::max((inputs + 1) / 2, 1);
  for (int i = 0; i < q.count; ++i) {
    double x = std::cos(kPi * (i + 0.75) / (q.count + 0.5)), value = 0, slope = 0;
    for (int step = 0; step < 100; ++step) {
      Legendre(q.count, x, &value, &slope);
      x -= value / slope;
      if (std::abs(value / slope) < 1e-16) break;
    }
    Legendre(q.count, x, &value, &slope);
    q.node[i] = (x + 1) / 2;
    q.weight[i] = 1 / ((1 - x * x) * slope * slope);
  }
  return q;
}

// W_k from P_k: products before and after each input, so that nothing is divided by what may be 0.
// `factor` and `before` [n].
__device__ void ComposeWeights(const Merge& m, const double* transition, double* factor,
                               double* before) {
  const int n = m.inputs.count;
  for (int k = 0; k < n; ++k) factor[k] = 0;
  for (int i = 0; i < m.quadrature.count; ++i) {
    const double t = m.quadrature.node[i];
    double product = 1;
    for (int k = 0; k < n; ++k) {
      before[k] = product;
      product *= (1 - t) + t * transition[k];
    }
    product = m.quadrature.weight[i];
    for (int k = n; k-- > 0;) {
      factor[k] += before[k] * product;
      product *= (1 - t) + t * transition[k];
    }
  }
}

// S = base S_O + sum_k factor[k] S_k for elements that decay alike. Returns base.
__device__ double Factors(const Merge& m, const RecurrentTensor& tensor, int64_t group, int rate,
                          double* factor) {
  const int n = m.inputs.count;
  if (m.method == SlotMerge::kMean) {
    for (int k = 0; k < n; ++k) factor[k] = m.inputs.weight[k] / m.weight_sum;
    return 0;
  }
  double transition[kMaxMergeInputs];
  const double* t = tensor.t + group;
  const double old = m.ancestor < 0 ? 0 : t[m.ancestor * tensor.t_slot_stride];
  const double a = tensor.rates[group * tensor.num_rates + rate];
  for (int k = 0; k < n; ++k) {
    transition[k] = exp(a * (t[m.inputs.of[k] * tensor.t_slot_stride] - old));
  }
  double base = 1;
  if (m.method == SlotMerge::kOrdered) {
    double less = 0;
    for (int k = n; k-- > 0;) {
      factor[k] = m.inputs.weight[k] * base;  // base: how all that follow decay it
      less += factor[k] * transition[k];
      base *= transition[k];
    }
    return base - less;
  }
  double before[kMaxMergeInputs];
  ComposeWeights(m, transition, factor, before);
  double sum = 0;
  for (int k = 0; k < n; ++k) {
    sum += factor[k];
    base *= transition[k];
  }
  const double scale = m.norm == SlotMergeNorm::kWeights ? 1 / sum : 1;
  for (int k = 0; k < n; ++k) {
    factor[k] *= m.inputs.weight[k] * scale;
    base -= factor[k] * transition[k];
  }
  return base;
}

// kCount elements from `at` of a slot.
template <int kCount>
__device__ inline void CombineAt(const Merge& m, const RecurrentTensor& tensor, int64_t at,
                                 double base, const double* factor) {
  double sum[kCount] = {};
  const auto add = [&](int32_t slot, double by) {
    const auto v = *reinterpret_cast<const Pack<float, kCount>*>(tensor.state +
                                                                 slot * tensor.slot_stride + at);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum[i] += by * v.v[i];
  };
  if (m.ancestor >= 0) add(m.ancestor, base);
#pragma unroll 4
  for (int k = 0; k < m.inputs.count; ++k) add(m.inputs.of[k], factor[k]);
  Pack<float, kCount> out;
#pragma unroll
  for (int i = 0; i < kCount; ++i) out.v[i] = static_cast<float>(sum[i]);
  *reinterpret_cast<Pack<float, kCount>*>(tensor.state + m.output * tensor.slot_stride + at) = out;
}

// Groups with one rate. Blocks: (parts of a group, groups, tensors).
template <int kCount>
__global__ void __launch_bounds__(kThreads)
    MergeGroups(const __grid_constant__ Table<RecurrentTensor> table,
                const __grid_constant__ Merge m) {
  __shared__ double factor[kMaxMergeInputs];
  __shared__ double base;
  const RecurrentTensor& tensor = table.of[blockIdx.z];
  const int64_t group = blockIdx.y;
  if (group >= tensor.groups || tensor.num_rates != 1) return;
  if (threadIdx.x == 0) base = Factors(m, tensor, group, 0, factor);
  __syncthreads();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kCount;
  int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kCount;
  for (; i < tensor.size; i += step) {
    CombineAt<kCount>(m, tensor, group * tensor.size + i, base, factor);
  }
}

// Groups with several rates: a thread has the elements of one rate. Blocks: (rates, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    MergeRates(const __grid_constant__ Table<RecurrentTensor> table,
               const __grid_constant__ Merge m) {
  const RecurrentTensor& tensor = table.of[blockIdx.z];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (tensor.num_rates == 1 || i >= tensor.groups * tensor.num_rates) return;
  const int64_t group = i / tensor.num_rates;
  const int rate = static_cast<int>(i % tensor.num_rates);
  double factor[kMaxMergeInputs];
  const double base = Factors(m, tensor, group, rate, factor);
  for (int64_t at = rate; at < tensor.size; at += tensor.num_rates) {
    CombineAt<1>(m, tensor, group * tensor.size + at, base, factor);
  }
}

// T, after the tensors, which need the inputs' own. Blocks: (groups, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    MergeTimes(const __grid_constant__ Table<RecurrentTensor> table,
               const __grid_constant__ Merge m) {
  const RecurrentTensor& tensor = table.of[blockIdx.z];
  const int64_t group = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (group >= tensor.groups) return;
  double* t = tensor.t + group;
  const double old = m.ancestor < 0 ? 0 : t[m.ancestor * tensor.t_slot_stride];
  double sum = 0;
  for (int k = 0; k < m.inputs.count; ++k) {
    const double own = t[m.inputs.of[k] * tensor.t_slot_stride];
    sum += m.method == SlotMerge::kMean ? m.inputs.weight[k] * own : own - old;
  }
  t[m.output * tensor.t_slot_stride] =
      m.method == SlotMerge::kMean ? sum / m.weight_sum : old + sum;
}

// Scales a group to the mean of the inputs' norms. Blocks: (groups, 1, tensors).
__global__ void __launch_bounds__(kThreads)
    ScaleToInputs(const __grid_constant__ Table<RecurrentTensor> table,
                  const __grid_constant__ Merge m) {
  const RecurrentTensor& tensor = table.of[blockIdx.z];
  const int64_t group = blockIdx.x;
  if (group >= tensor.groups) return;
  const auto norm = [&](int32_t slot) {
    const float* values = tensor.state + slot * tensor.slot_stride + group * tensor.size;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < tensor.size; i += kThreads) {
      sum += static_cast<double>(values[i]) * values[i];
    }
    return sqrt(BlockSum<kThreads>(sum));
  };
  double wanted = 0;
  for (int k = 0; k < m.inputs.count; ++k) wanted += m.inputs.weight[k] * norm(m.inputs.of[k]);
  const double own = norm(m.output);
  if (own == 0) return;
  const auto scale = static_cast<float>(wanted / m.weight_sum / own);
  float* out = tensor.state + m.output * tensor.slot_stride + group * tensor.size;
  for (int64_t i = threadIdx.x; i < tensor.size; i += kThreads) out[i] *= scale;
}

absl::Status Check(const MergeSlotsParams& p) {
  const auto inputs = static_cast<int32_t>(p.inputs.size());
  if (inputs < 1 || inputs > kMaxMergeInputs) {
    return Require(false, "MergeSlots", "1 to 64 inputs can be merged");
  }
  if (!p.weights.empty() && p.weights.size() != p.inputs.size()) {
    return Require(false, "MergeSlots", "weights for another number of inputs");
  }
  for (double weight : p.weights) {
    if (!(weight > 0)) return Require(false, "MergeSlots", "weights must be positive");
  }
  bool slots = p.output >= 0 && p.output != p.ancestor;
  for (int32_t slot : p.inputs) slots &= slot >= 0 && slot != p.output;
  return Require(slots, "MergeSlots", "a negative slot, or the output is an input or the ancestor");
}

Merge ByValue(const MergeSlotsParams& p) {
  Merge m = {};
  m.inputs.count = static_cast<int32_t>(p.inputs.size());
  for (size_t k = 0; k < p.inputs.size(); ++k) {
    m.inputs.of[k] = p.inputs[k];
    m.inputs.weight[k] = p.weights.empty() ? 1 : p.weights[k];
    m.weight_sum += m.inputs.weight[k];
  }
  m.ancestor = p.ancestor;
  m.output = p.output;
  m.method = p.method;
  m.norm = p.norm;
  m.quadrature = MakeQuadrature(m.inputs.count);
  return m;
}

absl::Status MergeTable(const Table<RecurrentTensor>& table, unsigned count, const Merge& m,
                        cudaStream_t stream) {
  int64_t groups = 0, size = 0, rates = 0;  // the most that the kernels' grids need
  bool vectors = true;
  for (unsigned i = 0; i < count; ++i) {
    const RecurrentTensor& t = table.of[i];
    if (t.groups > 65535 && t.num_rates == 1) {
      return Require(false, "MergeSlots", "more than 65,535 groups with one rate");
    }
    groups = std::max(groups, t.groups);
    if (t.num_rates > 1) {
      rates = std::max(rates, t.groups * t.num_rates);
    } else {
      size = std::max(size, t.size);
      vectors &= t.size % 4 == 0 && t.slot_stride % 4 == 0 && IsAligned(t.state);
    }
  }
  if (groups == 0) return absl::OkStatus();
  if (size > 0) {
    const dim3 grid(static_cast<unsigned>(CeilDiv(size, kPart)), static_cast<unsigned>(groups),
                    count);
    if (vectors) {
      StartOn(stream, MergeGroups<4>, grid, kThreads, 0, table, m);
    } else {
      StartOn(stream, MergeGroups<1>, grid, kThreads, 0, table, m);
    }
  }
  if (rates > 0) {
    const dim3 grid(static_cast<unsigned>(CeilDiv(rates, kThreads)), 1, count);
    StartOn(stream, MergeRates, grid, kThreads, 0, table, m);
  }
  if (m.norm == SlotMergeNorm::kInputs) {
    StartOn(stream, ScaleToInputs, dim3(static_cast<unsigned>(groups), 1, count), kThreads, 0,
            table, m);
  }
  const dim3 grid(static_cast<unsigned>(CeilDiv(groups, kThreads)), 1, count);
  StartOn(stream, MergeTimes, grid, kThreads, 0, table, m);
  return LaunchStatus("MergeSlots");
}

}  // namespace

absl::Status MergeSlots(const MergeSlotsParams& p, const Launch& launch) {
  if (absl::Status s = CheckLaunch(launch, false, "MergeSlots"); !s.ok()) return s;
  if (absl::Status s = Check(p); !s.ok()) return s;
  const Merge m = ByValue(p);
  return ForTables(p.tensors, [&](const Table<RecurrentTensor>& table, unsigned count, size_t) {
    return MergeTable(table, count, m, launch.cuda->stream());
  });
}

}  // namespace anabranch::kernels::cuda
