#include "kernels/norm.h"

#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

enum class Kind { kPlain, kGateFirst, kNormFirst, kGateOnly };

struct Case {
  Kind kind = Kind::kPlain;
  int64_t rows = 0, width = 0;
  int32_t groups = 1;
  bool with_weight = true, round = false, in_place = false;
  float eps = 1e-5f;
  int64_t x_stride = 0, z_stride = 0, y_stride = 0;
  Floats x, z, weight;

  Case(Kind kind, int64_t rows, int64_t width, int32_t groups)
      : kind(kind), rows(rows), width(width), groups(groups) {
    x_stride = width + 3, z_stride = width + 1, y_stride = width + 3;
    Random random(static_cast<uint32_t>(width));
    x = random.Normals(rows * x_stride);
    z = random.Normals(rows * z_stride, 3);
    weight = random.Normals(width);
  }
  absl::Status Launch1(const Launch& launch, Floats& y) const {
    y = in_place ? x : Floats(static_cast<size_t>(rows * y_stride), kPoison);
    RmsNormParams p;
    p.rows = rows, p.width = width, p.groups = groups;
    p.x = in_place ? y.data() : x.data(), p.x_stride = x_stride;
    p.weight = with_weight ? weight.data() : nullptr;
    p.eps = eps, p.y = y.data(), p.y_stride = y_stride, p.round_to_bf16 = round;
    if (kind == Kind::kPlain) return RmsNorm(p, launch);
    const GateOrder order = kind == Kind::kGateFirst   ? GateOrder::kGateFirst
                            : kind == Kind::kNormFirst ? GateOrder::kNormFirst
                                                       : GateOrder::kGateOnly;
    return GatedRmsNorm({p, z.data(), z_stride, order}, launch);
  }
  Floats Run(const Launch& launch = {}) const {
    Floats y;
    EXPECT_TRUE(Launch1(launch, y).ok());
    return y;
  }
};

double Silu(double z) { return z / (1 + std::exp(-z)); }

// The mean of squares has relative error (n + 2) u, its root half of that; each further operation
// adds one unit and silu a few.
void ExpectClose(const Case& c, const Floats& y) {
  const int64_t n = c.width / c.groups;
  const double relative =
      (static_cast<double>(n) / 2 + 24) * kUnit + (c.round ? 2.1 * kBf16Unit : 0);
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t i = 0; i < c.width; ++i) {
      const int64_t from = i / n * n;
      const auto value = [&](int64_t j) {
        const double v = c.x[static_cast<size_t>(r * c.x_stride + j)];
        return c.kind == Kind::kGateFirst ? v * Silu(c.z[static_cast<size_t>(r * c.z_stride + j)])
                                          : v;
      };
      double squares = 0;
      for (int64_t j = from; j < from + n; ++j) squares += value(j) * value(j);
      double want = value(i);
      if (c.kind != Kind::kGateOnly) {
        want /= std::sqrt(squares / static_cast<double>(n) + c.eps);
        if (c.with_weight) want *= c.weight[static_cast<size_t>(i)];
      }
      if (c.kind == Kind::kNormFirst || c.kind == Kind::kGateOnly) {
        want *= Silu(c.z[static_cast<size_t>(r * c.z_stride + i)]);
      }
      ASSERT_NEAR(y[static_cast<size_t>(r * c.y_stride + i)], want, relative * std::abs(want))
          << "row " << r << " column " << i << " of " << c.width;
    }
  }
}

class NormOfKind : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, NormOfKind,
                         ::testing::Values(Kind::kPlain, Kind::kGateFirst, Kind::kNormFirst,
                                           Kind::kGateOnly));

TEST_P(NormOfKind, MatchesDoublePrecision) {
  for (int64_t width : {1, 5, 15, 16, 17, 63, 64, 65, 100, 384, 770}) {
    for (int32_t groups : {1, 2, 5}) {
      if (width % groups != 0) continue;
      for (const int64_t rows : {0, 1, 9}) {
        Case c(GetParam(), rows, width, groups);
        ExpectClose(c, c.Run());
        c.with_weight = false;
        c.round = true;
        ExpectClose(c, c.Run());
        c.with_weight = true;
        ExpectClose(c, c.Run());
      }
    }
  }
}

TEST_P(NormOfKind, InPlaceGivesTheSameBits) {
  Case c(GetParam(), 5, 100, 2);
  const Floats apart = c.Run();
  c.in_place = true;
  const Floats y = c.Run();
  for (int64_t r = 0; r < c.rows; ++r) {
    EXPECT_TRUE(SameBits(y.data() + r * c.y_stride, apart.data() + r * c.y_stride, 400));
  }
}

TEST_P(NormOfKind, RowsThreadsAndInstructionSetsGiveTheSameBits) {
  const Case c(GetParam(), 40, 389, 1);
  const Floats all = c.Run();
  const OddParallel parallel(3);
  EXPECT_TRUE(SameBits(all, c.Run({.parallel = &parallel})));
  if (ForceTarget::Has(HWY_AVX2)) {
    const ForceTarget avx2(HWY_AVX2);
    EXPECT_TRUE(SameBits(all, c.Run()));
  }
  for (int64_t r = 0; r < c.rows; ++r) {
    Case one = c;
    one.rows = 1;
    one.x.erase(one.x.begin(), one.x.begin() + r * c.x_stride);
    one.z.erase(one.z.begin(), one.z.begin() + r * c.z_stride);
    EXPECT_TRUE(SameBits(one.Run().data(), all.data() + r * c.y_stride, 389 * 4));
  }
}

TEST_P(NormOfKind, PortableBaselineIsRightToo) {
  const ForceTarget baseline(HWY_SCALAR);
  const Case c(GetParam(), 3, 70, 1);
  ExpectClose(c, c.Run());
}

TEST_P(NormOfKind, NanStaysInItsRow) {
  Case c(GetParam(), 3, 50, 1);
  const Floats clean = c.Run();
  c.x[static_cast<size_t>(c.x_stride + 7)] = kPoison;
  const Floats y = c.Run();
  EXPECT_TRUE(std::isnan(y[static_cast<size_t>(c.y_stride + 7)]));
  for (int64_t r : {0, 2}) {
    EXPECT_TRUE(SameBits(y.data() + r * c.y_stride, clean.data() + r * c.y_stride, 200));
  }
}

TEST_P(NormOfKind, RefusesNonsense) {
  const auto refused = [&](auto change) {
    Case c(GetParam(), 3, 50, 1);
    change(c);
    Floats y;
    return c.Launch1({}, y).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](Case&) {}));
  EXPECT_TRUE(refused([](Case& c) { c.groups = 3; }));
  EXPECT_TRUE(refused([](Case& c) { c.groups = 0; }));
  EXPECT_TRUE(refused([](Case& c) { c.x_stride = 49; }));
  EXPECT_TRUE(refused([](Case& c) { c.width = 0; }));
}

}  // namespace
}  // namespace anabranch::kernels
