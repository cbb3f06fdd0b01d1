#include "kernels/attention.h"

#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

float RoundBf16(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000u;
  std::memcpy(&v, &bits, 4);
  return v;
}

struct Shape {
  int32_t heads, kv_heads, head_dim, page_tokens;
};

struct Result {
  Sequences y;
  std::vector<unsigned char> keys, values;
  bool operator==(const Result& o) const {
    for (size_t i = 0; i < y.of.size(); ++i) {
      if (!SameBits(y.of[i], o.y.of[i])) return false;
    }
    return SameBits(keys, o.keys) && SameBits(values, o.values);
  }
};

struct Layer {
  Shape shape;
  DType dtype;
  std::vector<int64_t> lengths;
  Sequences q, k, v;
  float scale;
  bool round = false;
  int64_t page_stride, pages_each = 0;

  Layer(Shape s, DType dtype, std::vector<int64_t> n, uint32_t seed)
      : shape(s), dtype(dtype), lengths(std::move(n)) {
    Random random(seed);
    q = Sequences::Make(lengths, s.heads * s.head_dim, random);
    k = Sequences::Make(lengths, s.kv_heads * s.head_dim, random);
    v = Sequences::Make(lengths, s.kv_heads * s.head_dim, random);
    scale = 1.5f / std::sqrt(static_cast<float>(s.head_dim));
    page_stride = static_cast<int64_t>(s.page_tokens) * s.kv_heads * s.head_dim + 11;
    for (int64_t len : lengths) {
      pages_each = std::max(pages_each, (len + s.page_tokens - 1) / s.page_tokens);
    }
  }

  size_t Element() const { return dtype == DType::kFloat32 ? 4 : 2; }
  Result Empty() const {
    const size_t bytes = lengths.size() * static_cast<size_t>(pages_each * page_stride) * Element();
    return {Sequences::Poisoned(lengths, q.width), std::vector<unsigned char>(bytes, 0xFF),
            std::vector<unsigned char>(bytes, 0xFF)};
  }

  absl::Status Launch1(const LaunchPlan& plan, const Launch& launch, Result& out,
                       int64_t missing_pages = 0) const {
    const int64_t qs = q.width + 1, ks = k.width + 2, vs = v.width + 3, ys = q.width + 4;
    const Packing packing(plan);
    const Floats qr = q.Gather(plan, qs), kr = k.Gather(plan, ks), vr = v.Gather(plan, vs);
    Floats yr(static_cast<size_t>(packing.row_start.back() * ys), kPoison);
    // Page j of sequence i is block j * sequences + i: neighbours belong to others.
    std::vector<int32_t> pages, page_start{0};
    int64_t max_context = 0;
    for (const Segment& s : plan) {
      for (int64_t j = 0; j < pages_each - missing_pages; ++j) {
        pages.push_back(static_cast<int32_t>(j * static_cast<int64_t>(lengths.size()) + s.seq));
      }
      page_start.push_back(static_cast<int32_t>(pages.size()));
      max_context = std::max(max_context, s.to);
    }
    AttentionParams p;
    p.rows = packing.rows(), p.position = packing.position.data();
    p.heads = shape.heads, p.kv_heads = shape.kv_heads, p.head_dim = shape.head_dim;
    p.scale = scale, p.q = qr.data(), p.k = kr.data(), p.v = vr.data();
    p.q_stride = qs, p.k_stride = ks, p.v_stride = vs;
    p.kv.dtype = dtype, p.kv.keys = out.keys.data(), p.kv.values = out.values.data();
    p.kv.page_stride = page_stride, p.kv.page_tokens = shape.page_tokens;
    p.kv.pages = pages.data(), p.kv.page_start = page_start.data();
    p.y = yr.data(), p.y_stride = ys, p.round_to_bf16 = round;
    Floats scratch(static_cast<size_t>(AttentionScratch(p, max_context)) + 1, kPoison);
    scratch.back() = 42;
    p.scratch = scratch.data();
    const absl::Status status = Attention(p, launch);
    EXPECT_EQ(scratch.back(), 42) << "wrote past the scratch";
    out.y.Scatter(plan, yr, ys);
    return status;
  }

  Result Run(const Plan& plan, const Launch& launch = {}) const {
    Result out = Empty();
    for (const LaunchPlan& one : plan) EXPECT_TRUE(Launch1(one, launch, out).ok());
    return out;
  }
};

// A score has relative error (head_dim + 2) u of sum |q k|; softmax turns an absolute error e of
// scores into a relative one of at most 2e; normalising and summing add context + 16 units.
void ExpectHeadClose(const Layer& l, const Result& got, size_t seq, int64_t t, int head) {
  const Shape& s = l.shape;
  const int64_t kv = static_cast<int64_t>(head / (s.heads / s.kv_heads)) * s.head_dim;
  const float* q = l.q.of[seq].data() + t * l.q.width + static_cast<int64_t>(head) * s.head_dim;
  const auto stored = [&](float v) { return l.dtype == DType::kFloat32 ? v : RoundBf16(v); };
  std::vector<double> weight;
  double top = -1e300, score_error = 0, sum = 0;
  for (int64_t j = 0; j <= t; ++j) {
    double dot = 0, size = 0;
    for (int i = 0; i < s.head_dim; ++i) {
      const double term = static_cast<double>(q[i]) *
                          stored(l.k.of[seq][static_cast<size_t>(j * l.k.width + kv + i)]);
      dot += term;
      size += std::abs(term);
    }
    weight.push_back(dot * l.scale);
    score_error = std::max(score_error, (s.head_dim + 4) * kUnit * size * l.scale);
    top = std::max(top, weight.back());
  }
  for (double& w : weight) sum += w = std::exp(w - top);
  double relative = 2 * score_error + static_cast<double>(2 * t + 40) * kUnit;
  if (l.round) relative += 3 * kBf16Unit;
  for (int i = 0; i < s.head_dim; ++i) {
    double y = 0, size = 0;
    for (int64_t j = 0; j <= t; ++j) {
      const double term = weight[static_cast<size_t>(j)] / sum *
                          stored(l.v.of[seq][static_cast<size_t>(j * l.v.width + kv + i)]);
      y += term;
      size += std::abs(term);
    }
    const size_t at =
        static_cast<size_t>(t * l.q.width + static_cast<int64_t>(head) * s.head_dim + i);
    ASSERT_NEAR(got.y.of[seq][at], y, relative * size)
        << "seq " << seq << " token " << t << " head " << head << " channel " << i;
  }
}

void ExpectClose(const Layer& l, const Result& got) {
  for (size_t seq = 0; seq < l.lengths.size(); ++seq) {
    for (int64_t t = 0; t < l.lengths[seq]; ++t) {
      for (int head = 0; head < l.shape.heads; ++head) ExpectHeadClose(l, got, seq, t, head);
    }
  }
}

const Shape kShapes[] = {{4, 2, 64, 16}, {4, 4, 16, 256}, {6, 2, 80, 7}, {3, 1, 5, 5},
                         {2, 1, 256, 8}, {8, 1, 1, 3},    {7, 7, 24, 4}, {16, 2, 33, 32}};

class AttentionOfType : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, AttentionOfType,
                         ::testing::Values(DType::kFloat32, DType::kBFloat16));

TEST_P(AttentionOfType, MatchesDoublePrecision) {
  for (const Shape& shape : kShapes) {
    const Layer l(shape, GetParam(), {5, 1, 0, 41}, 3);
    ExpectClose(l, l.Run({{{0, 0, 5}, {1, 0, 1}, {2, 0, 0}, {3, 0, 41}}}));
    ExpectClose(l, l.Run({{{0, 0, 2}, {3, 0, 20}}, {{3, 20, 41}, {1, 0, 1}, {0, 2, 5}}}));
  }
}

TEST_P(AttentionOfType, RoundsProbabilitiesAndOutput) {
  Layer l({4, 2, 32, 16}, GetParam(), {30}, 3);
  l.round = true;
  const Result got = l.Run(EachAlone(l.lengths));
  ExpectClose(l, got);
  for (float v : got.y.of[0]) EXPECT_EQ(v, RoundBf16(v));
}

TEST_P(AttentionOfType, PortableBaselineIsRightToo) {
  const ForceTarget baseline(HWY_SCALAR);
  const Layer l({4, 2, 20, 8}, GetParam(), {19}, 3);
  ExpectClose(l, l.Run(EachAlone(l.lengths)));
}

TEST_P(AttentionOfType, AnySplitAndBatchGivesTheSameBits) {
  for (const Shape& shape : kShapes) {
    Random random(5);
    const Layer l(shape, GetParam(), {13, 3, 33}, 17);
    const Result alone = l.Run(EachAlone(l.lengths));
    for (const Plan& plan : OtherPlans(l.lengths, random)) ASSERT_TRUE(l.Run(plan) == alone);
  }
}

TEST_P(AttentionOfType, ThreadsAndInstructionSetsGiveTheSameBits) {
  for (const Shape& shape : kShapes) {
    const Layer l(shape, GetParam(), {13, 40}, 23);
    const Plan plan = {{{0, 0, 13}, {1, 0, 40}}};
    const Result serial = l.Run(plan);
    for (int threads : {2, 5}) {
      const OddParallel parallel(threads);
      EXPECT_TRUE(l.Run(plan, {.parallel = &parallel}) == serial);
    }
    if (ForceTarget::Has(HWY_AVX2)) {
      const ForceTarget avx2(HWY_AVX2);
      EXPECT_TRUE(l.Run(plan) == serial) << "AVX2, head_dim " << shape.head_dim;
    }
  }
}

TEST_P(AttentionOfType, NanStaysInItsSequenceAndFuture) {
  Layer l({4, 2, 16, 4}, GetParam(), {9, 9, 9}, 29);
  const Plan plan = {{{0, 0, 9}, {1, 0, 9}, {2, 0, 9}}};
  const Result clean = l.Run(plan);
  l.k.of[1][static_cast<size_t>(4 * l.k.width)] = kPoison;
  l.v.of[1][static_cast<size_t>(5 * l.v.width)] = kPoison;
  const Result got = l.Run(plan);
  EXPECT_TRUE(SameBits(got.y.of[0], clean.y.of[0]));
  EXPECT_TRUE(SameBits(got.y.of[2], clean.y.of[2]));
  const size_t before = static_cast<size_t>(4 * l.q.width) * 4;
  EXPECT_TRUE(SameBits(got.y.of[1].data(), clean.y.of[1].data(), before));
  EXPECT_TRUE(std::isnan(got.y.of[1][static_cast<size_t>(6 * l.q.width)]));
}

TEST(AttentionTest, RefusesNonsense) {
  const Layer l({4, 2, 16, 4}, DType::kFloat32, {9}, 1);
  Result out = l.Empty();
  const auto refused = [&](auto change, int64_t missing_pages) {
    Layer bad = l;
    change(bad);
    return bad.Launch1({{0, 0, 9}}, {}, out, missing_pages).code() ==
           absl::StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](Layer&) {}, 0));
  EXPECT_TRUE(refused([](Layer&) {}, 1)) << "no page for the last row";
  EXPECT_TRUE(refused([](Layer& b) { b.shape.kv_heads = 3; }, 0));
  EXPECT_TRUE(refused([](Layer& b) { b.shape.head_dim = 17; }, 0));
  EXPECT_TRUE(refused([](Layer& b) { b.page_stride = 10; }, 0));
}

}  // namespace
}  // namespace anabranch::kernels
