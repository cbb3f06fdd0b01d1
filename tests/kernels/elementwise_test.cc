#include "kernels/elementwise.h"

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

const int64_t kWidths[] = {1, 3, 15, 16, 17, 40, 257};

TEST(EmbedTest, CopiesScaledRowsExactly) {
  for (int64_t width : kWidths) {
    for (bool round : {false, true}) {
      Random random(1);
      const Floats table = random.Normals(11 * width);
      std::vector<uint16_t> narrow;
      for (float v : table) {
        const float r = RoundBf16(v);
        uint32_t bits;
        std::memcpy(&bits, &r, 4);
        narrow.push_back(static_cast<uint16_t>(bits >> 16));
      }
      const std::vector<int32_t> ids = {3, 0, 10, 3, 7};
      for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
        Floats y(static_cast<size_t>(5 * width), kPoison);
        EmbedParams p;
        p.rows = 5, p.width = width, p.ids = ids.data(), p.dtype = dtype, p.scale = 1.7f;
        p.table = dtype == DType::kFloat32 ? static_cast<const void*>(table.data()) : narrow.data();
        p.y = y.data(), p.round_to_bf16 = round;
        const OddParallel parallel(2);
        ASSERT_TRUE(Embed(p, {.parallel = &parallel}).ok());
        for (int64_t r = 0; r < 5; ++r) {
          for (int64_t i = 0; i < width; ++i) {
            const float in = table[static_cast<size_t>(ids[static_cast<size_t>(r)] * width + i)];
            float want = (dtype == DType::kFloat32 ? in : RoundBf16(in)) * 1.7f;
            if (round) want = RoundBf16(want);
            ASSERT_EQ(y[static_cast<size_t>(r * width + i)], want);
          }
        }
      }
    }
  }
}

TEST(EmbedTest, RefusesNegativeIds) {
  const Floats table(8);
  const int32_t ids[] = {0, -1};
  Floats y(8);
  EmbedParams p;
  p.rows = 2, p.width = 4, p.ids = ids, p.table = table.data(), p.y = y.data();
  EXPECT_EQ(Embed(p, {}).code(), absl::StatusCode::kInvalidArgument);
  p.rows = 1;
  EXPECT_TRUE(Embed(p, {}).ok());
}

struct Gated {
  int64_t rows, width, in_stride, y_stride;
  Floats gate, up;
  Activation activation = Activation::kSilu;
  Gated(int64_t rows, int64_t width)
      : rows(rows), width(width), in_stride(width + 3), y_stride(width + 1) {
    Random random(static_cast<uint32_t>(width));
    gate = random.Normals(rows * in_stride, 10);
    up = random.Normals(rows * in_stride);
  }
  Floats Run(bool round, const Launch& launch = {}) const {
    Floats y(static_cast<size_t>(rows * y_stride), kPoison);
    GatedMulParams p;
    p.rows = rows, p.width = width, p.gate = gate.data(), p.up = up.data();
    p.in_stride = in_stride, p.y = y.data(), p.y_stride = y_stride, p.round_to_bf16 = round;
    p.activation = activation;
    EXPECT_TRUE(GatedMul(p, launch).ok());
    return y;
  }
};

TEST(GatedMulTest, MatchesDoublePrecisionOverTheWholeRange) {
  for (int64_t width : kWidths) {
    Gated g(4, width);
    const float extremes[] = {-200, -104, -88.5f, 0, 88.5f, 104, 1e37f};
    for (size_t i = 0; i < 7 && i < static_cast<size_t>(width); ++i) g.gate[i] = extremes[i];
    for (int variant = 0; variant < 4; ++variant) {
      const bool round = variant % 2 == 1, gelu = variant / 2 == 1;
      g.activation = gelu ? Activation::kGelu : Activation::kSilu;
      const Floats y = g.Run(round);
      for (int64_t r = 0; r < g.rows; ++r) {
        for (int64_t i = 0; i < width; ++i) {
          const double z = g.gate[static_cast<size_t>(r * g.in_stride + i)];
          const double act = gelu ? z * std::erfc(-z / std::sqrt(2.0)) / 2 : z / (1 + std::exp(-z));
          const double want = act * g.up[static_cast<size_t>(r * g.in_stride + i)];
          const double relative = 8 * kUnit + (round ? 2.1 * kBf16Unit : 0);
          // Below the smallest normal float (reached near z = -87 or, gelu, -13) only absolute
          // error counts.
          ASSERT_NEAR(y[static_cast<size_t>(r * g.y_stride + i)], want,
                      relative * std::abs(want) + 1e-36)
              << z;
        }
        ASSERT_TRUE(std::isnan(y[static_cast<size_t>(r * g.y_stride + width)]));
      }
    }
  }
}

class GatedMulBits : public ::testing::TestWithParam<Activation> {};
INSTANTIATE_TEST_SUITE_P(Activations, GatedMulBits,
                         ::testing::Values(Activation::kSilu, Activation::kGelu,
                                           Activation::kRelu2));

TEST_P(GatedMulBits, AreTheSameOnAnyThreadsAndInstructionSetAndNanStays) {
  Gated g(300, 100);
  g.activation = GetParam();
  const Floats serial = g.Run(false);
  const OddParallel parallel(3);
  EXPECT_TRUE(SameBits(serial, g.Run(false, {.parallel = &parallel})));
  if (ForceTarget::Has(HWY_AVX2)) {
    const ForceTarget avx2(HWY_AVX2);
    EXPECT_TRUE(SameBits(serial, g.Run(false)));
  }
  g.gate[static_cast<size_t>(7 * g.in_stride + 9)] = kPoison;
  const Floats y = g.Run(false);
  for (size_t i = 0; i < y.size(); ++i) {
    const bool gap = i % 101 == 100;
    EXPECT_EQ(std::isnan(y[i]), gap || i == 7 * 101 + 9);
  }
}

TEST(GatedMulTest, WithoutUpIsTheActivationAloneAndInPlace) {
  for (int64_t width : kWidths) {
    for (bool round : {false, true}) {
      Random random(4);
      Floats x = random.Normals(5 * width);
      const Floats x0 = x;
      GatedMulParams p;
      p.rows = 5, p.width = p.in_stride = p.y_stride = width, p.gate = p.y = x.data();
      p.activation = Activation::kRelu2, p.round_to_bf16 = round;
      const OddParallel parallel(2);
      ASSERT_TRUE(GatedMul(p, {.parallel = &parallel}).ok());
      for (size_t i = 0; i < x.size(); ++i) {
        const float want = x0[i] > 0 ? x0[i] * x0[i] : 0;
        ASSERT_EQ(x[i], round ? RoundBf16(want) : want);
      }
    }
  }
}

TEST(AddScaledTest, RoundsProductThenSum) {
  for (int64_t width : kWidths) {
    for (bool round : {false, true}) {
      Random random(2);
      const int64_t stride = width + 3;
      Floats x = random.Normals(6 * stride);
      const Floats x0 = x, y = random.Normals(6 * stride);
      AddScaledParams p;
      p.rows = 6, p.width = width, p.x = x.data(), p.y = y.data(), p.scale = 0.3f;
      p.x_stride = p.y_stride = stride;
      p.round_to_bf16 = round;
      const OddParallel parallel(2);
      ASSERT_TRUE(AddScaled(p, {.parallel = &parallel}).ok());
      for (size_t i = 0; i < x.size(); ++i) {
        if (static_cast<int64_t>(i) % stride >= width) {
          ASSERT_EQ(x[i], x0[i]);
          continue;
        }
        const volatile float product = round ? RoundBf16(0.3f * y[i]) : 0.3f * y[i];
        const float sum = x0[i] + product;
        ASSERT_EQ(x[i], round ? RoundBf16(sum) : sum);
      }
    }
  }
}

TEST(ScaleTest, MultipliesByOneFactorAndByTheColumns) {
  for (int64_t width : kWidths) {
    for (bool round : {false, true}) {
      Random random(3);
      const int64_t stride = width + 5;
      Floats x = random.Normals(6 * stride);
      const Floats x0 = x, columns = random.Normals(width);
      for (const float* factors : {static_cast<const float*>(nullptr), columns.data()}) {
        x = x0;
        ScaleParams p;
        p.rows = 6, p.width = width, p.x = p.y = x.data(), p.x_stride = p.y_stride = stride;
        p.scale = 0.3f, p.columns = factors, p.round_to_bf16 = round;
        const OddParallel parallel(2);
        ASSERT_TRUE(Scale(p, {.parallel = &parallel}).ok());
        for (size_t i = 0; i < x.size(); ++i) {
          const size_t column = i % static_cast<size_t>(stride);
          float want = x0[i];
          if (column < static_cast<size_t>(width)) {
            const volatile float factor = factors ? 0.3f * factors[column] : 0.3f;
            want *= factor;
            if (round) want = RoundBf16(want);
          }
          ASSERT_EQ(x[i], want);
        }
      }
    }
  }
}

TEST(ElementwiseTest, RefuseMissingArraysAndShortStrides) {
  Floats a(8);
  GatedMulParams s;
  s.rows = 2, s.width = 4, s.gate = a.data(), s.up = a.data(), s.y = a.data();
  s.in_stride = 4, s.y_stride = 3;
  EXPECT_EQ(GatedMul(s, {}).code(), absl::StatusCode::kInvalidArgument);
  AddScaledParams add;
  add.rows = 2, add.width = 4, add.x = a.data(), add.x_stride = add.y_stride = 4;
  EXPECT_EQ(AddScaled(add, {}).code(), absl::StatusCode::kInvalidArgument);
  add.y = a.data(), add.y_stride = 3;
  EXPECT_EQ(AddScaled(add, {}).code(), absl::StatusCode::kInvalidArgument);
  ScaleParams scale;
  scale.rows = 2, scale.width = 4, scale.x = a.data(), scale.y = a.data(), scale.x_stride = 4;
  EXPECT_EQ(Scale(scale, {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(AddScaled({}, {}).ok()) << "nothing to do";
}

TEST(SumDirectionsTest, SumsAtCheckpointsAreThoseOfShorterLaunches) {
  Random random(3);
  const int64_t width = 37;
  const std::vector<int32_t> starts = {0, 40, 41, 100};
  const Floats x = random.Normals(100 * width), sums = random.Normals(3 * width);
  const std::vector<int32_t> checks = {0, 17, 39, 40, 99};
  const auto run = [&](std::vector<int32_t> row_start, Floats* kept) {
    Floats result = sums;
    SumDirectionsParams p;
    p.rows = {3, row_start[3], 100, row_start.data(), nullptr};
    p.width = width, p.x = x.data(), p.sums = result.data();
    if (kept != nullptr) {
      p.checkpoints = {static_cast<int32_t>(checks.size()), checks.data(), nullptr};
      p.checkpoint_sums = kept->data();
    }
    const std::vector<int32_t> slots = {0, 1, 2};
    p.rows.slot = slots.data();
    EXPECT_TRUE(SumDirections(p, {}).ok());
    return result;
  };
  Floats kept(checks.size() * width);
  EXPECT_EQ(run(starts, &kept), run(starts, nullptr)) << "a checkpoint changed the sums";
  for (size_t i = 0; i < checks.size(); ++i) {
    std::vector<int32_t> shorter = starts;
    size_t seq = 0;
    while (starts[seq + 1] <= checks[i]) ++seq;
    for (size_t s = seq + 1; s < shorter.size(); ++s) shorter[s] = checks[i] + 1;
    const Floats want = run(shorter, nullptr);
    EXPECT_TRUE(std::equal(want.begin() + seq * width, want.begin() + (seq + 1) * width,
                           kept.begin() + i * width))
        << "row " << checks[i];
  }
}

}  // namespace
}  // namespace anabranch::kernels
