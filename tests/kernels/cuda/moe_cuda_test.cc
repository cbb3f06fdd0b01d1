// The CUDA mixture of experts against the CPU's: the same choices, and the same sums.
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder
using Where = Memory::Where;

struct Routed {
  std::vector<int32_t> expert;
  Floats weight;
};

// `p` has everything but arrays.
Routed RunRoute(RouteParams p, const Floats& logits, const Floats& bias, DType dtype, Where where,
                const Launch& launch) {
  Memory memory(where);
  const auto choices = static_cast<size_t>(p.rows * p.chosen);
  p.logits = memory.PutActs(logits, dtype);
  p.scores = memory.Put(Floats(logits.size(), kPoison));
  if (!bias.empty()) p.bias = memory.Put(bias);
  p.expert = memory.Put(std::vector<int32_t>(choices, -1));
  p.weight = memory.Put(Floats(choices, kPoison));
  const absl::Status s = where == Where::kHost ? Route(p, launch) : cuda::Route(p, launch);
  EXPECT_TRUE(s.ok()) << s;
  return {memory.Get(p.expert, choices), memory.Get(p.weight, choices)};
}

class RouteCudaTest : public CudaKernelTest {
 protected:
  void ExpectSame(const RouteParams& p, const Floats& logits, const Floats& bias, DType dtype) {
    const Routed want = RunRoute(p, logits, bias, dtype, Where::kHost, {});
    const Routed got = RunRoute(p, logits, bias, dtype, Where::kDevice, launch_);
    ASSERT_EQ(got.expert, want.expert)
        << p.rows << " rows, " << p.chosen << " of " << p.experts << " experts";
    std::vector<double> tolerance;  // both from double, rounded once
    for (float v : want.weight) tolerance.push_back(2 * kUnit * std::abs(v));
    EXPECT_TRUE(AllNear(got.weight, want.weight, tolerance));
  }
};

TEST_F(RouteCudaTest, ChoosesAndWeighsAsTheCpu) {
  uint32_t seed = 0;
  for (RouterKind kind :
       {RouterKind::kSoftmaxThenTopK, RouterKind::kTopKThenSoftmax, RouterKind::kSigmoid}) {
    for (int64_t rows : {0, 1, 7, 130}) {
      for (int32_t experts : {1, 2, 5, 16, 63, 128, 512}) {
        for (int32_t chosen : {1, 2, 6, 22}) {
          if (chosen > experts) continue;
          Random random(++seed);
          RouteParams p;
          p.kind = kind, p.rows = rows, p.experts = experts, p.chosen = chosen;
          p.normalize = seed % 2 == 0, p.scale = seed % 3 == 0 ? 2.5f : 1;
          const DType dtype = seed % 5 == 0 ? DType::kBFloat16 : DType::kFloat32;
          const Floats logits = KeptAs(dtype, random.Normals(rows * experts, 2));
          const Floats bias =
              kind == RouterKind::kSigmoid ? random.Normals(experts, 0.3f) : Floats();
          ExpectSame(p, logits, bias, dtype);
        }
      }
    }
  }
}

TEST_F(RouteCudaTest, ChoosesOnlyFromTheBestGroups) {
  for (int32_t groups : {2, 4, 8, 24}) {
    for (int32_t top = 1; top <= groups; ++top) {
      Random random(static_cast<uint32_t>(groups * 31 + top));
      RouteParams p;
      p.kind = RouterKind::kSigmoid, p.rows = 100, p.experts = 24, p.groups = groups;
      p.top_groups = top, p.chosen = std::min(4, top * 24 / groups);
      ExpectSame(p, random.Normals(p.rows * 24, 2), random.Normals(24, 0.3f), DType::kFloat32);
    }
  }
}

TEST_F(RouteCudaTest, EqualScoresGoToTheLowerIndexAndNanShowsOnlyInItsRow) {
  RouteParams p;
  p.kind = RouterKind::kTopKThenSoftmax, p.rows = 4, p.experts = 70, p.chosen = 3;
  Floats logits(4 * 70, 1.0f);
  logits[70] = logits[71] = kPoison;
  std::fill(logits.begin() + 140, logits.begin() + 210, kPoison);
  const Routed want = RunRoute(p, logits, {}, DType::kFloat32, Where::kHost, {});
  const Routed got = RunRoute(p, logits, {}, DType::kFloat32, Where::kDevice, launch_);
  EXPECT_EQ(got.expert, want.expert);
  for (size_t i : {0, 1, 2, 9, 10, 11}) EXPECT_EQ(got.weight[i], want.weight[i]);
}

struct Mixture {
  ExpertsParams p;
  DType weights, acts;
  std::vector<Floats> up, down;
  Floats x, weight;
  std::vector<int32_t> expert;

  Mixture(int64_t rows, int64_t width, int64_t inside, int32_t experts, int32_t chosen, bool gated,
          DType weights, DType acts, uint32_t seed)
      : weights(weights), acts(acts) {
    Random random(seed);
    p.rows = rows, p.width = width, p.expert_width = inside;
    p.experts = experts, p.chosen = chosen, p.gated = gated;
    p.activation = gated ? Activation::kSilu : Activation::kRelu2;
    const float small = 1 / std::sqrt(static_cast<float>(width));
    for (int32_t e = 0; e < experts; ++e) {
      up.push_back(KeptAs(weights, random.Normals((gated ? 2 : 1) * inside * width, small)));
      down.push_back(KeptAs(weights, random.Normals(width * inside, small)));
    }
    x = KeptAs(acts, random.Normals(rows * width));
    RouteParams route;
    route.rows = rows, route.experts = experts, route.chosen = chosen;
    // Few experts get most rows.
    Floats logits = random.Normals(rows * experts, 1);
    for (size_t i = 0; i < logits.size(); i += static_cast<size_t>(experts)) logits[i] += 2;
    const Routed routed = RunRoute(route, logits, {}, DType::kFloat32, Where::kHost, {});
    expert = routed.expert, weight = routed.weight;
  }

  Floats Run(Where where, const Launch& launch) const {
    Memory memory(where);
    ExpertsParams q = p;
    const int64_t inside = (p.gated ? 2 : 1) * p.expert_width;
    std::vector<PackedMatrix> matrices[2];
    for (int side = 0; side < 2; ++side) {
      const int64_t n = side == 0 ? inside : p.width, k = side == 0 ? p.width : p.expert_width;
      for (const Floats& w : side == 0 ? up : down) {
        const void* data =
            where == Where::kHost ? Packed(memory, w, n, k) : memory.PutActs(w, weights).data;
        // On the CPU in float32: the same numbers.
        matrices[side].push_back({data, where == Where::kHost ? DType::kFloat32 : weights, n, k});
      }
    }
    const int64_t choices = p.rows * p.chosen;
    q.up = matrices[0].data(), q.down = matrices[1].data();
    q.x = memory.PutActs(x, acts), q.weight = memory.Put(weight), q.expert = memory.Put(expert);
    const auto poisoned = [&](int64_t n) {
      return memory.PutActs(Floats(static_cast<size_t>(n), kPoison), acts);
    };
    q.gathered = poisoned(choices * p.width), q.inside = poisoned(choices * inside);
    q.slot = memory.Put(std::vector<int32_t>(static_cast<size_t>(choices), -7));
    q.end = memory.Put(std::vector<int32_t>(static_cast<size_t>(p.experts) + 1, -7));
    q.y = poisoned(p.rows * p.width);
    const absl::Status s = where == Where::kHost ? Experts(q, launch) : cuda::Experts(q, launch);
    EXPECT_TRUE(s.ok()) << s;
    return memory.GetActs(q.y, static_cast<size_t>(p.rows * p.width));
  }

  static const void* Packed(Memory& memory, const Floats& w, int64_t n, int64_t k) {
    Floats packed(PackedBytes(DType::kFloat32, n, k) / sizeof(float));
    PackMatrix(DType::kFloat32, w.data(), n, k, packed.data());
    return memory.Put(packed);
  }
};

class ExpertsCudaTest : public CudaKernelTest {
 protected:
  // Inside, numbers are about 1 and rounded to the activations' dtype before and after they are
  // multiplied; outside, each expert's result once more. Of sums of random signs the bound is the
  // largest result.
  void ExpectSame(const Mixture& m) {
    SCOPED_TRACE(::testing::Message()
                 << m.p.rows << " x " << m.p.width << " x " << m.p.expert_width << ", "
                 << m.p.chosen << " of " << m.p.experts << ", gated " << m.p.gated << ", dtypes "
                 << static_cast<int>(m.weights) << static_cast<int>(m.acts));
    const Floats want = m.Run(Where::kHost, {}), got = m.Run(Where::kDevice, launch_);
    double most = 1;
    for (float v : want) most = std::max<double>(most, std::abs(v));
    const double terms = static_cast<double>(m.p.width + m.p.expert_width + 64);
    const double tolerance =
        most * (terms * kUnit + (m.acts == DType::kFloat32 ? 0 : 8) * UnitOf(DType::kBFloat16));
    EXPECT_TRUE(AllNear(got, want, std::vector<double>(want.size(), tolerance)));
  }
};

TEST_F(ExpertsCudaTest, MatchesTheCpuOverRandomShapes) {
  Random random(5);
  for (int round = 0; round < 80; ++round) {
    const int64_t rows = round % 10 == 0 ? 0 : random.Int(1, 60);
    const auto experts = static_cast<int32_t>(random.Int(1, 9));
    const auto chosen = static_cast<int32_t>(random.Int(1, experts));
    const int64_t unit = round % 4 < 2 ? 1 : 8;  // odd widths, and those of tensor cores
    ExpectSame(Mixture(rows, unit * random.Int(1, 40), unit * random.Int(1, 40), experts, chosen,
                       round % 2 == 0, kBothDTypes[round / 2 % 2], kBothDTypes[round / 4 % 2],
                       static_cast<uint32_t>(round)));
  }
}

TEST_F(ExpertsCudaTest, MatchesTheCpuForFewAndManyRowsAnExpert) {
  for (DType dtype : kBothDTypes) {
    for (int64_t rows : {1, 16, 64, 700}) {
      if (SmallShapes() && rows > 64) continue;
      ExpectSame(Mixture(rows, 256, 136, 32, 6, true, dtype, dtype, 3));
    }
    ExpectSame(Mixture(3000, 64, 40, 16, 2, false, dtype, dtype, 4));  // grouped by several blocks
  }
}

TEST_F(ExpertsCudaTest, GivesTheSameBitsEachTime) {
  for (DType dtype : kBothDTypes) {
    const Mixture m(3000, 64, 40, 16, 2, true, dtype, dtype, 8);
    EXPECT_TRUE(SameBits(m.Run(Where::kDevice, launch_), m.Run(Where::kDevice, launch_)));
  }
}

}  // namespace
}  // namespace anabranch::kernels
