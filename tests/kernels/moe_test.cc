// Experts against a naive reference in double precision, and the row contract: what a row gets does
// not depend on the rows that share its experts.
#include "kernels/moe.h"

#include <numeric>
#include <set>

#include "absl/status/statusor.h"
#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Routed {
  std::vector<int32_t> expert;
  Floats weight;
};

struct Router {
  RouteParams p;
  Floats logits, bias;

  Router(RouterKind kind, int64_t rows, int32_t experts, int32_t chosen, uint32_t seed) {
    Random random(seed);
    logits = random.Normals(rows * experts, 2);
    p.kind = kind, p.rows = rows, p.experts = experts, p.chosen = chosen;
    if (kind == RouterKind::kSigmoid) bias = random.Normals(experts, 0.3f);
  }
  absl::StatusOr<Routed> Run(int64_t from, int64_t to, const Launch& launch = {}) const {
    RouteParams q = p;
    const auto choices = static_cast<size_t>((to - from) * p.chosen);
    Routed out{std::vector<int32_t>(choices, -1), Floats(choices, kPoison)};
    Floats scores(static_cast<size_t>((to - from) * p.experts), kPoison);
    q.rows = to - from, q.logits = logits.data() + from * p.experts, q.scores = scores.data();
    q.bias = bias.empty() ? nullptr : bias.data();
    q.expert = out.expert.data(), q.weight = out.weight.data();
    if (const absl::Status s = Route(q, launch); !s.ok()) return s;
    return out;
  }
  Routed All(const Launch& launch = {}) const { return *Run(0, p.rows, launch); }
};

// Straight from the definition.
std::pair<std::set<int32_t>, std::vector<double>> Expected(const Router& r, int64_t row) {
  const int32_t n = r.p.experts;
  std::vector<double> score, value;
  const float* logits = r.logits.data() + row * n;
  double sum = 0;
  for (int32_t e = 0; e < n; ++e) sum += std::exp(static_cast<double>(logits[e]));
  const bool sigmoid = r.p.kind == RouterKind::kSigmoid;
  for (int32_t e = 0; e < n; ++e) {
    const double v = logits[e];
    value.push_back(sigmoid ? 1 / (1 + std::exp(-v)) : std::exp(v) / sum);
    score.push_back(sigmoid ? value.back() + r.bias[static_cast<size_t>(e)] : v);
  }
  const int32_t size = n / r.p.groups;
  std::vector<std::pair<double, int32_t>> groups;
  for (int32_t g = 0; g < r.p.groups; ++g) {
    std::vector<double> part(score.begin() + g * size, score.begin() + (g + 1) * size);
    std::sort(part.rbegin(), part.rend());
    groups.emplace_back(size < 2 ? part[0] : part[0] + part[1], g);
  }
  std::sort(groups.rbegin(), groups.rend());
  for (int32_t g = r.p.top_groups; g < r.p.groups; ++g) {
    for (int32_t i = 0; i < size; ++i) {
      score[static_cast<size_t>(groups[static_cast<size_t>(g)].second * size + i)] = -1e9;
    }
  }
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return score[static_cast<size_t>(a)] > score[static_cast<size_t>(b)];
  });
  const std::set<int32_t> chosen(order.begin(), order.begin() + r.p.chosen);
  double some = 0;
  for (int32_t e : chosen) some += value[static_cast<size_t>(e)];
  const bool normalize = r.p.normalize || r.p.kind == RouterKind::kTopKThenSoftmax;
  std::vector<double> weights;
  for (int32_t e : chosen) {
    weights.push_back(value[static_cast<size_t>(e)] / (normalize ? some : 1) * r.p.scale);
  }
  return {chosen, weights};
}

void ExpectRouted(const Router& router) {
  const Routed routed = router.All();
  for (int64_t row = 0; row < router.p.rows; ++row) {
    const auto [chosen, weights] = Expected(router, row);
    const auto at = static_cast<size_t>(row * router.p.chosen);
    const std::vector<int32_t> got(routed.expert.begin() + at,
                                   routed.expert.begin() + at + chosen.size());
    ASSERT_EQ(got, std::vector<int32_t>(chosen.begin(), chosen.end()));
    for (size_t i = 0; i < weights.size(); ++i) {
      ASSERT_NEAR(routed.weight[at + i], weights[i], 4 * kUnit * std::abs(weights[i]));
    }
  }
}

constexpr RouterKind kKinds[] = {RouterKind::kSoftmaxThenTopK, RouterKind::kTopKThenSoftmax,
                                 RouterKind::kSigmoid};

TEST(RouteTest, FollowsTheDefinitionForEveryKindAndShape) {
  uint32_t seed = 0;
  for (RouterKind kind : kKinds) {
    for (int64_t rows : {0, 1, 7, 33}) {
      for (int32_t experts : {1, 2, 5, 16, 63}) {
        for (int32_t chosen : {1, 2, 3, 8}) {
          if (chosen > experts) continue;
          Router router(kind, rows, experts, chosen, ++seed);
          router.p.normalize = seed % 2 == 0;
          router.p.scale = seed % 3 == 0 ? 2.5f : 1;
          ExpectRouted(router);
        }
      }
    }
  }
}

TEST(RouteTest, ChoosesOnlyFromTheBestGroups) {
  for (int32_t top : {1, 2, 3, 4}) {
    Router router(RouterKind::kSigmoid, 200, 24, 4, 100 + static_cast<uint32_t>(top));
    router.p.groups = 4;
    router.p.top_groups = top;
    ExpectRouted(router);
  }
}

TEST(RouteTest, EqualScoresGoToTheLowerIndexAndNanShowsOnlyInItsRow) {
  Router router(RouterKind::kTopKThenSoftmax, 3, 6, 2, 1);
  std::fill(router.logits.begin(), router.logits.end(), 1.0f);
  EXPECT_EQ(router.All().expert, (std::vector<int32_t>{0, 1, 0, 1, 0, 1}));
  router.logits[7] = kPoison;
  const Routed routed = router.All();
  EXPECT_EQ(routed.expert, (std::vector<int32_t>{0, 1, 0, 2, 0, 1}));
  for (size_t i : {0, 1, 4, 5}) EXPECT_EQ(routed.weight[i], 0.5f);
}

TEST(RouteTest, RefusesSizesThatDoNotFitTogether) {
  Router router(RouterKind::kSigmoid, 2, 6, 2, 1);
  const auto refused = [](Router r, auto change) {
    change(r.p);
    return r.Run(0, 2).status().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(router, [](RouteParams& p) { p.chosen = 7; }));
  EXPECT_TRUE(refused(router, [](RouteParams& p) { p.chosen = 0; }));
  EXPECT_TRUE(refused(router, [](RouteParams& p) { p.groups = 4; }));
  EXPECT_TRUE(refused(router, [](RouteParams& p) { p.top_groups = 2; }));
  EXPECT_TRUE(refused(router, [](RouteParams& p) { p.groups = 6, p.chosen = 2; }));
}

struct Mixture {
  ExpertsParams p;
  std::vector<Floats> up, down;
  Floats x;
  Routed routed;

  Mixture(int64_t rows, int64_t width, int64_t inside, int32_t experts, int32_t chosen, bool gated,
          uint32_t seed) {
    Random random(seed);
    p.rows = rows, p.width = width, p.expert_width = inside;
    p.experts = experts, p.chosen = chosen, p.gated = gated;
    p.activation = gated ? Activation::kSilu : Activation::kRelu2;
    for (int32_t e = 0; e < experts; ++e) {
      up.push_back(random.Normals((gated ? 2 : 1) * inside * width, 0.5f));
      down.push_back(random.Normals(width * inside, 0.5f));
    }
    x = random.Normals(rows * width);
    routed = Router(RouterKind::kSoftmaxThenTopK, rows, experts, chosen, seed + 1).All();
  }

  Floats Run(int64_t from, int64_t to, const Launch& launch = {}) const {
    ExpertsParams q = p;
    const int64_t inside = (p.gated ? 2 : 1) * p.expert_width;
    std::vector<Floats> memory;
    std::vector<PackedMatrix> packed[2];
    for (int side = 0; side < 2; ++side) {
      for (const Floats& w : side == 0 ? up : down) {
        const int64_t n = side == 0 ? inside : p.width, k = side == 0 ? p.width : p.expert_width;
        memory.emplace_back(PackedBytes(DType::kFloat32, n, k) / sizeof(float) + 1);
        PackMatrix(DType::kFloat32, w.data(), n, k, memory.back().data());
        packed[side].push_back({memory.back().data(), DType::kFloat32, n, k});
      }
    }
    q.rows = to - from;
    const auto choices = static_cast<size_t>(q.rows * p.chosen);
    Floats gathered(choices * static_cast<size_t>(p.width), kPoison);
    Floats middle(choices * static_cast<size_t>(inside), kPoison);
    Floats y(static_cast<size_t>(q.rows * p.width), kPoison);
    std::vector<int32_t> slot(choices), end(static_cast<size_t>(p.experts) + 1, 77);
    q.x = x.data() + from * p.width;
    q.expert = routed.expert.data() + from * p.chosen;
    q.weight = routed.weight.data() + from * p.chosen;
    q.up = packed[0].data(), q.down = packed[1].data();
    q.gathered = gathered.data(), q.inside = middle.data();
    q.slot = slot.data(), q.end = end.data(), q.y = y.data();
    EXPECT_TRUE(Experts(q, launch).ok());
    return y;
  }
  Floats All(const Launch& launch = {}) const { return Run(0, p.rows, launch); }

  // [width], and what its terms add up to without their signs.
  std::pair<std::vector<double>, std::vector<double>> Naive(int64_t row) const {
    const auto width = static_cast<size_t>(p.width), inside = static_cast<size_t>(p.expert_width);
    std::vector<double> y(width, 0), scale(width, 0);
    for (int32_t i = 0; i < p.chosen; ++i) {
      const auto at = static_cast<size_t>(row * p.chosen + i);
      const Floats& u = up[static_cast<size_t>(routed.expert[at])];
      const Floats& d = down[static_cast<size_t>(routed.expert[at])];
      for (size_t j = 0; j < inside; ++j) {
        double first = 0, second = 0;
        for (size_t c = 0; c < width; ++c) {
          const double in = x[static_cast<size_t>(row) * width + c];
          first += u[j * width + c] * in;
          if (p.gated) second += u[(inside + j) * width + c] * in;
        }
        const double act = p.gated ? first / (1 + std::exp(-first)) * second
                                   : std::max(first, 0.0) * std::max(first, 0.0);
        for (size_t c = 0; c < width; ++c) {
          const double term = routed.weight[at] * d[c * inside + j] * act;
          y[c] += term;
          scale[c] += std::abs(term) + 1;
        }
      }
    }
    return {y, scale};
  }
};

TEST(ExpertsTest, EqualANaiveLoopOverRandomShapes) {
  Random random(5);
  for (int round = 0; round < 60; ++round) {
    const int64_t rows = round % 6 == 0 ? 0 : random.Int(1, 21);
    const auto experts = static_cast<int32_t>(random.Int(1, 9));
    const auto chosen = static_cast<int32_t>(random.Int(1, experts));
    const Mixture m(rows, random.Int(1, 40), random.Int(1, 40), experts, chosen, round % 2 == 0,
                    static_cast<uint32_t>(round));
    const Floats y = m.All();
    for (int64_t row = 0; row < rows; ++row) {
      const auto [want, scale] = m.Naive(row);
      for (size_t c = 0; c < want.size(); ++c) {
        ASSERT_NEAR(y[static_cast<size_t>(row) * want.size() + c], want[c], 400 * kUnit * scale[c]);
      }
    }
  }
}

TEST(ExpertsTest, ARowDoesNotDependOnTheRowsThatShareItsExperts) {
  for (bool gated : {false, true}) {
    Mixture m(50, 33, 47, 5, 2, gated, 9);
    for (bool round : {false, true}) {
      m.p.round_to_bf16 = round;
      const Floats all = m.All();
      const OddParallel parallel(3);
      EXPECT_TRUE(SameBits(all, m.All({.parallel = &parallel})));
      for (int64_t from = 0, step = 1; from < m.p.rows; from += step, step = step % 7 + 1) {
        const int64_t to = std::min(m.p.rows, from + step);
        const Floats part = m.Run(from, to);
        EXPECT_TRUE(
            SameBits(part.data(), all.data() + from * m.p.width, part.size() * sizeof(float)));
      }
    }
  }
}

TEST(ExpertsTest, RefusesExpertsOutOfRangeAndMissingArrays) {
  ExpertsParams p;
  EXPECT_TRUE(Experts(p, {}).ok()) << "nothing to do";
  p.rows = 1, p.width = 1, p.expert_width = 1, p.experts = 2, p.chosen = 1;
  EXPECT_EQ(Experts(p, {}).code(), absl::StatusCode::kInvalidArgument);
  Floats f(8);
  std::vector<int32_t> ints(8, 2);
  PackedMatrix one{f.data(), DType::kFloat32, 1, 1};
  const PackedMatrix matrices[] = {one, one};
  p.x = p.weight = f.data(), p.gathered = p.inside = p.y = f.data();
  p.expert = p.slot = p.end = ints.data(), p.up = p.down = matrices;
  EXPECT_EQ(Experts(p, {}).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace anabranch::kernels
