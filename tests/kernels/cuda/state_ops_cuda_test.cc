// Operations on resident slots against the formulas in double, written down independently.
#include <algorithm>
#include <numeric>

#include "kernels/cuda/state_ops.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels::cuda {
namespace {

using namespace kernels::testing;  // NOLINT: the helpers of this folder

constexpr int32_t kSlots = 12;

// A recurrent tensor on both sides. T grows with the slot, so that later slots extend earlier ones.
struct Tensor {
  int64_t groups, size;
  int32_t num_rates;
  int64_t pad;
  Floats state, rates;
  std::vector<double> t;
  RecurrentTensor device;

  int64_t stride() const { return groups * size + pad; }
  Tensor(int64_t groups, int64_t size, int32_t num_rates, int64_t pad, Random& random,
         Memory& memory)
      : groups(groups), size(size), num_rates(num_rates), pad(pad) {
    state = random.Normals(kSlots * stride());
    for (int64_t i = 0; i < groups * num_rates; ++i) rates.push_back(-random.Uniform(0.1f, 2));
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      for (int64_t g = 0; g < groups; ++g) t.push_back(slot * 0.2 + random.Uniform(0, 0.1f));
    }
    device = {memory.Put(state), stride(), memory.Put(t), groups,
              memory.Put(rates), groups,   size,          num_rates};
  }
  double S(int32_t slot, int64_t g, int64_t i) const {
    return slot < 0 ? 0 : state[static_cast<size_t>(slot * stride() + g * size + i)];
  }
  double T(int32_t slot, int64_t g) const {
    return slot < 0 ? 0 : t[static_cast<size_t>(slot * groups + g)];
  }
  double P(int32_t slot, int32_t since, int64_t g, int64_t i) const {
    return std::exp(rates[static_cast<size_t>(g * num_rates + i % num_rates)] *
                    (T(slot, g) - T(since, g)));
  }
};

std::vector<Tensor> MakeTensors(Random& random, Memory& memory) {
  std::vector<Tensor> tensors;
  tensors.emplace_back(3, 64, 1, 0, random, memory);     // heads
  tensors.emplace_back(5, 8200, 1, 4, random, memory);   // more than a block's part
  tensors.emplace_back(300, 16, 16, 0, random, memory);  // channels
  tensors.emplace_back(2, 33, 1, 3, random, memory);     // odd
  tensors.emplace_back(7, 10, 5, 1, random, memory);     // rates that repeat
  return tensors;
}

std::vector<RecurrentTensor> Devices(const std::vector<Tensor>& tensors) {
  std::vector<RecurrentTensor> devices;
  for (const Tensor& tensor : tensors) devices.push_back(tensor.device);
  return devices;
}

// The mean over all orders of what those after k leave of it.
double AllOrders(const std::vector<double>& p, size_t k) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  double sum = 0, count = 0;
  do {
    double product = 1;
    for (auto at = std::find(order.begin(), order.end(), k) + 1; at != order.end(); ++at) {
      product *= p[*at];
    }
    sum += product;
    ++count;
  } while (std::next_permutation(order.begin(), order.end()));
  return sum / count;
}

struct Expected {
  double value = 0, size = 0;  // and its terms without signs
  void Add(double by, double v) { value += by * v, size += std::abs(by * v); }
};

Expected Merged(const Tensor& t, const MergeSlotsParams& p, int64_t g, int64_t i) {
  std::vector<double> transition, weight;
  for (size_t k = 0; k < p.inputs.size(); ++k) {
    transition.push_back(t.P(p.inputs[k], p.ancestor, g, i));
    weight.push_back(p.weights.empty() ? 1 : p.weights[k]);
  }
  Expected out;
  if (p.method == SlotMerge::kMean) {
    const double all = std::accumulate(weight.begin(), weight.end(), 0.0);
    for (size_t k = 0; k < weight.size(); ++k) out.Add(weight[k] / all, t.S(p.inputs[k], g, i));
    return out;
  }
  std::vector<double> factor;
  double base = 1, later = 1;
  for (size_t k = 0; k < weight.size(); ++k) base *= transition[k];
  for (size_t k = weight.size(); k-- > 0;) {
    factor.insert(factor.begin(), later);
    later *= transition[k];
  }
  if (p.method == SlotMerge::kCompose) {
    for (size_t k = 0; k < weight.size(); ++k) factor[k] = AllOrders(transition, k);
    const double sum = std::accumulate(factor.begin(), factor.end(), 0.0);
    for (double& f : factor) f /= p.norm == SlotMergeNorm::kWeights ? sum : 1;
  }
  const double old = t.S(p.ancestor, g, i);
  out.Add(base, old);
  for (size_t k = 0; k < weight.size(); ++k) {
    out.Add(factor[k] * weight[k], t.S(p.inputs[k], g, i));
    out.Add(-factor[k] * weight[k] * transition[k], old);
  }
  return out;
}

class StateOpsCudaTest : public CudaKernelTest {};

TEST_F(StateOpsCudaTest, MergesByEveryMethodNormAndNumberOfInputs) {
  Memory memory(Memory::Where::kDevice);
  Random random(1);
  const std::vector<Tensor> tensors = MakeTensors(random, memory);
  const std::vector<RecurrentTensor> devices = Devices(tensors);
  const std::vector<int32_t> all = {3, 9, 2, 7, 5, 10};
  const std::vector<double> weights = {1, 2, 0.5, 1, 3, 0.1};
  for (size_t n : {1, 2, 4}) {
    if (SmallShapes() && n > 2) continue;
    for (SlotMerge method : {SlotMerge::kCompose, SlotMerge::kOrdered, SlotMerge::kMean}) {
      for (SlotMergeNorm norm : {SlotMergeNorm::kNone, SlotMergeNorm::kWeights}) {
        for (int32_t ancestor : {-1, 0}) {
          for (bool weighted : {false, true}) {
            MergeSlotsParams p;
            p.tensors = devices, p.inputs = absl::MakeConstSpan(all).subspan(0, n);
            p.ancestor = ancestor, p.output = 11, p.method = method, p.norm = norm;
            if (weighted) p.weights = absl::MakeConstSpan(weights).subspan(0, n);
            ASSERT_TRUE(MergeSlots(p, launch_).ok());
            for (const Tensor& t : tensors) {
              Floats want;
              std::vector<double> tolerance;
              for (int64_t g = 0; g < t.groups; ++g) {
                for (int64_t i = 0; i < t.size; ++i) {
                  const Expected e = Merged(t, p, g, i);
                  want.push_back(static_cast<float>(e.value));
                  tolerance.push_back(2 * kUnit * std::abs(e.value) + 1e-12 * e.size + 1e-30);
                }
              }
              EXPECT_TRUE(AllNear(memory.Get(t.device.state + 11 * t.stride(), want.size()), want,
                                  tolerance));
              const std::vector<double> time =
                  memory.Get(t.device.t + 11 * t.groups, static_cast<size_t>(t.groups));
              for (int64_t g = 0; g < t.groups; ++g) {
                double sum = 0, weight = 0;
                for (size_t k = 0; k < n; ++k) {
                  const double w = weighted ? weights[k] : 1;
                  sum += method == SlotMerge::kMean ? w * t.T(all[k], g)
                                                    : t.T(all[k], g) - t.T(ancestor, g);
                  weight += w;
                }
                const double expected =
                    method == SlotMerge::kMean ? sum / weight : t.T(ancestor, g) + sum;
                EXPECT_NEAR(time[static_cast<size_t>(g)], expected, 1e-12 * (1 + expected));
              }
            }
          }
        }
      }
    }
  }
}

TEST_F(StateOpsCudaTest, ScalesAMergeToTheNormsOfItsInputs) {
  Memory memory(Memory::Where::kDevice);
  Random random(2);
  const std::vector<Tensor> tensors = MakeTensors(random, memory);
  const std::vector<RecurrentTensor> devices = Devices(tensors);
  const std::vector<int32_t> inputs = {1, 4};
  const std::vector<double> weights = {1, 3};
  MergeSlotsParams p;
  p.tensors = devices, p.inputs = inputs, p.weights = weights, p.ancestor = 0, p.output = 11;
  p.norm = SlotMergeNorm::kInputs;
  ASSERT_TRUE(MergeSlots(p, launch_).ok());
  for (const Tensor& t : tensors) {
    const Floats got =
        memory.Get(t.device.state + 11 * t.stride(), static_cast<size_t>(t.groups * t.size));
    for (int64_t g = 0; g < t.groups; ++g) {
      double square[3] = {};
      for (int64_t i = 0; i < t.size; ++i) {
        square[0] += t.S(1, g, i) * t.S(1, g, i);
        square[1] += t.S(4, g, i) * t.S(4, g, i);
        const double v = got[static_cast<size_t>(g * t.size + i)];
        square[2] += v * v;
      }
      const double want = (std::sqrt(square[0]) + 3 * std::sqrt(square[1])) / 4;
      EXPECT_NEAR(std::sqrt(square[2]), want, 4 * kUnit * want);
    }
  }
}

TEST_F(StateOpsCudaTest, AgesAndCombinesAlsoInPlace) {
  for (int32_t output : {11, 6}) {  // 6 is the first term
    for (double aging : {0.0, 0.5}) {
      Memory memory(Memory::Where::kDevice);
      Random random(3);
      const std::vector<Tensor> tensors = MakeTensors(random, memory);
      const std::vector<RecurrentTensor> devices = Devices(tensors);
      const std::vector<int32_t> slots = {6, 4, 2};
      const std::vector<double> signs = {1, -1, 1};
      for (size_t n : {1, 2, 3}) {
        if (output == 6 && n > 1) continue;  // the first run changed a term
        CombineSlotsParams p;
        p.tensors = devices, p.output = output, p.aging = aging;
        p.slots = absl::MakeConstSpan(slots).subspan(0, n);
        p.signs = absl::MakeConstSpan(signs).subspan(0, n);
        p.from_zero = n == 2;
        ASSERT_TRUE(CombineSlots(p, launch_).ok());
        for (const Tensor& t : tensors) {
          const auto size = static_cast<size_t>(t.groups * t.size);
          const Floats got = memory.Get(t.device.state + output * t.stride(), size);
          const std::vector<double> time =
              memory.Get(t.device.t + output * t.groups, static_cast<size_t>(t.groups));
          for (int64_t g = 0; g < t.groups; ++g) {
            const double now = t.T(6, g) * (1 + aging);
            EXPECT_NEAR(time[static_cast<size_t>(g)], n == 2 ? now - t.T(4, g) : now, 1e-12);
            for (int64_t i = 0; i < t.size; ++i) {
              Expected e;
              const double a = t.rates[static_cast<size_t>(g * t.num_rates + i % t.num_rates)];
              for (size_t k = 0; k < n; ++k) {
                e.Add(signs[k] * std::exp(a * (now - t.T(slots[k], g))), t.S(slots[k], g, i));
              }
              ASSERT_NEAR(got[static_cast<size_t>(g * t.size + i)], e.value,
                          2 * kUnit * std::abs(e.value) + 1e-12 * e.size);
            }
          }
        }
      }
    }
  }
}

TEST_F(StateOpsCudaTest, ComparesGroupByGroup) {
  Memory memory(Memory::Where::kDevice);
  Random random(4);
  const std::vector<Tensor> tensors = MakeTensors(random, memory);
  const std::vector<RecurrentTensor> devices = Devices(tensors);
  int64_t groups = 0;
  for (const Tensor& t : tensors) groups += t.groups;
  const auto size = static_cast<size_t>(groups) * 4;
  CompareSlotsParams p;
  p.tensors = devices, p.a = 3, p.b = 8;
  p.sums = memory.Put(std::vector<double>(size, -1));
  ASSERT_TRUE(CompareSlots(p, launch_).ok());
  const std::vector<double> got = memory.Get(p.sums, size);
  size_t at = 0;
  for (const Tensor& t : tensors) {
    for (int64_t g = 0; g < t.groups; ++g, at += 4) {
      double want[4] = {};
      for (int64_t i = 0; i < t.size; ++i) {
        const double a = t.S(3, g, i), b = t.S(8, g, i);
        want[0] += a * a, want[1] += b * b, want[2] += a * b, want[3] += (a - b) * (a - b);
      }
      for (size_t j = 0; j < 4; ++j) {
        EXPECT_NEAR(got[at + j], want[j], 1e-12 * (want[0] + want[1]));
      }
    }
  }
}

// 70 blocks: more than one table; of whole vectors and of odd bytes.
TEST_F(StateOpsCudaTest, CopiesAndFillsBlocksAndNothingElse) {
  for (int64_t odd : {0, 1}) {
    Memory memory(Memory::Where::kDevice);
    Random random(5);
    std::vector<BlockCopy> blocks;
    std::vector<char*> placed;
    std::vector<std::vector<char>> host;
    for (int i = 0; i < 70; ++i) {
      const int64_t bytes = 16 * random.Int(0, 3000) + odd * random.Int(0, 15);
      const int64_t stride = bytes + 16 * random.Int(0, 2) + odd;
      std::vector<char> data(static_cast<size_t>(3 * stride));
      for (char& c : data) c = static_cast<char>(random.Int(0, 255));
      placed.push_back(memory.Put(data));
      blocks.push_back({placed.back() + 2 * stride, placed.back(), bytes});
      std::copy_n(data.begin() + 2 * stride, bytes, data.begin());
      host.push_back(data);
    }
    const cudaStream_t stream = launch_.cuda->stream();
    ASSERT_TRUE(CopyBlocks({blocks}, stream).ok());
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    for (size_t i = 0; i < blocks.size(); ++i) {
      EXPECT_EQ(memory.Get(placed[i], host[i].size()), host[i]);
    }
    for (BlockCopy& block : blocks) block.from = nullptr;
    ASSERT_TRUE(FillBlocks({blocks, 0xa5}, stream).ok());
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    for (size_t i = 0; i < blocks.size(); ++i) {
      std::fill_n(host[i].begin(), blocks[i].bytes, static_cast<char>(0xa5));
      EXPECT_EQ(memory.Get(placed[i], host[i].size()), host[i]);
    }
  }
}

TEST_F(StateOpsCudaTest, TakesTheMeanOfWindows) {
  Memory memory(Memory::Where::kDevice);
  Random random(6);
  const int64_t count = 1001, stride = 1003;
  const Floats data = random.Normals(4 * stride);
  const std::vector<SlotBytes> tensors = {{memory.Put(data), stride * 4, count * 4}};
  const std::vector<int32_t> inputs = {0, 3, 1};
  const std::vector<double> weights = {1, 2, 0.5};
  MeanSlotsParams p;
  p.tensors = tensors, p.inputs = inputs, p.weights = weights, p.output = 3;
  ASSERT_TRUE(MeanSlots(p, launch_).ok());
  const Floats got = memory.Get(static_cast<float*>(tensors[0].base) + 3 * stride, count);
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    const double want = (data[at] + 2.0 * data[at + 3 * stride] + 0.5 * data[at + stride]) / 3.5;
    EXPECT_NEAR(got[at], want, kUnit * std::abs(want) + 1e-15);
  }
}

TEST_F(StateOpsCudaTest, RefusesSlotsThatOverlap) {
  const std::vector<int32_t> inputs = {0, 1};
  MergeSlotsParams p;
  p.inputs = inputs, p.output = 1;
  EXPECT_EQ(MergeSlots(p, launch_).code(), absl::StatusCode::kInvalidArgument);
  p.output = 2, p.ancestor = 2;
  EXPECT_EQ(MergeSlots(p, launch_).code(), absl::StatusCode::kInvalidArgument);
  p.ancestor = -1, p.inputs = {};
  EXPECT_EQ(MergeSlots(p, launch_).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace anabranch::kernels::cuda
