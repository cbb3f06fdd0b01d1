#include "kernels/gemm.h"

#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using testing::Floats;
using testing::ForceTarget;
using testing::kPoison;
using testing::kUnit;
using testing::OddParallel;
using testing::Random;
using testing::SameBits;

uint16_t Bf16Bits(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
float FromBf16(uint16_t v) {
  const uint32_t bits = static_cast<uint32_t>(v) << 16;
  float out;
  std::memcpy(&out, &bits, 4);
  return out;
}

// A product with its inputs; the weights' values are exact in `dtype`.
struct Product {
  DType dtype;
  int64_t m, n, k, x_stride, y_stride;
  bool with_bias;
  Floats x, w, bias;
  std::vector<unsigned char> storage;
  void* packed = nullptr;

  Product(DType dtype, int64_t m, int64_t n, int64_t k, uint32_t seed, bool with_bias = true)
      : dtype(dtype), m(m), n(n), k(k), x_stride(k + 3), y_stride(n + 5), with_bias(with_bias) {
    Random random(seed);
    x = random.Normals(m * x_stride);
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t i = k; i < x_stride; ++i) x[static_cast<size_t>(r * x_stride + i)] = kPoison;
    }
    w = random.Normals(n * k);
    bias = random.Normals(n);
    std::vector<uint16_t> narrow;
    for (float& v : w) {
      narrow.push_back(Bf16Bits(v));
      if (dtype == DType::kBFloat16) v = FromBf16(narrow.back());
    }
    storage.assign(PackedBytes(dtype, n, k) + 64, 0xAB);
    const uintptr_t base = reinterpret_cast<uintptr_t>(storage.data());
    packed = storage.data() + (64 - base % 64) % 64;
    PackMatrix(dtype, dtype == DType::kFloat32 ? static_cast<const void*>(w.data()) : narrow.data(),
               n, k, packed);
  }

  GemmParams Params(Floats& y) const {
    y.assign(static_cast<size_t>(m * y_stride), kPoison);
    GemmParams p;
    p.m = m;
    p.x = x.data();
    p.x_stride = x_stride;
    p.w = {packed, dtype, n, k};
    p.bias = with_bias ? bias.data() : nullptr;
    p.y = y.data();
    p.y_stride = y_stride;
    return p;
  }
  Floats Run(const Launch& launch = {}) const {
    Floats y;
    EXPECT_TRUE(Gemm(Params(y), launch).ok());
    return y;
  }
};

// Each of the k fused steps and the bias rounds once: |error| <= (k + 1) u * sum |x w|.
void ExpectCloseToDouble(const Product& g, const Floats& y) {
  for (int64_t r = 0; r < g.m; ++r) {
    for (int64_t c = 0; c < g.n; ++c) {
      double want = 0, size = 0;
      for (int64_t i = 0; i < g.k; ++i) {
        const double term = static_cast<double>(g.x[static_cast<size_t>(r * g.x_stride + i)]) *
                            g.w[static_cast<size_t>(c * g.k + i)];
        want += term;
        size += std::abs(term);
      }
      const double bias = g.with_bias ? g.bias[static_cast<size_t>(c)] : 0.0;
      const double bound = static_cast<double>(g.k + 2) * kUnit * (size + std::abs(bias));
      ASSERT_NEAR(y[static_cast<size_t>(r * g.y_stride + c)], want + bias, bound)
          << g.m << "x" << g.n << "x" << g.k << " at " << r << "," << c;
    }
    for (int64_t c = g.n; c < g.y_stride; ++c) {
      ASSERT_TRUE(std::isnan(y[static_cast<size_t>(r * g.y_stride + c)])) << "wrote past the row";
    }
  }
}

class GemmOfType : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, GemmOfType, ::testing::Values(DType::kFloat32, DType::kBFloat16));

TEST_P(GemmOfType, MatchesDoublePrecisionOnOddShapes) {
  Random random(1);
  for (int64_t m = 0; m <= 33; ++m) {
    const Product g(GetParam(), m, random.Int(1, 140), random.Int(0, 70), static_cast<uint32_t>(m),
                    m % 2 == 0);
    ExpectCloseToDouble(g, g.Run());
  }
  for (int64_t n : {1, 15, 16, 17, 31, 32, 33, 64, 127, 128, 129, 161}) {
    const Product g(GetParam(), random.Int(1, 4), n, 37, static_cast<uint32_t>(n));
    ExpectCloseToDouble(g, g.Run());
  }
  const Product large(GetParam(), 131, 100, 700, 7);
  ExpectCloseToDouble(large, large.Run());
}

TEST_P(GemmOfType, RowDoesNotDependOnItsBatch) {
  const Product g(GetParam(), 37, 203, 129, 11);
  const Floats together = g.Run();
  for (int64_t first = 0; first < g.m; ++first) {
    for (int64_t count : {1, 2, 3, 4, 5, 8, 13, 14, 15, 29}) {
      if (first + count > g.m) continue;
      Product part = g;
      part.packed = g.packed;
      part.m = count;
      part.x.erase(part.x.begin(), part.x.begin() + first * g.x_stride);
      const Floats y = part.Run();
      for (int64_t r = 0; r < count; ++r) {
        ASSERT_TRUE(SameBits(y.data() + r * g.y_stride, together.data() + (first + r) * g.y_stride,
                             static_cast<size_t>(g.n) * 4))
            << "row " << first + r << " in a batch of " << count;
      }
    }
  }
}

TEST_P(GemmOfType, ThreadsAndInstructionSetsGiveTheSameBits) {
  for (int64_t m : {1, 2, 3, 4, 7, 20, 250}) {
    const Product g(GetParam(), m, 333, 191, 5);
    const Floats serial = g.Run();
    for (int threads : {1, 2, 3, 7}) {
      const OddParallel parallel(threads);
      EXPECT_TRUE(SameBits(serial, g.Run({.parallel = &parallel})));
    }
    if (ForceTarget::Has(HWY_AVX2)) {
      const ForceTarget avx2(HWY_AVX2);
      EXPECT_TRUE(SameBits(serial, g.Run())) << "AVX2";
    }
  }
}

TEST_P(GemmOfType, PortableBaselineIsRightToo) {
  const Product g(GetParam(), 9, 45, 33, 3);
  const Floats fused = g.Run();
  const ForceTarget baseline(HWY_SCALAR);
  const Floats y = g.Run();
  ExpectCloseToDouble(g, y);
  // Without fused multiply-add the last bits differ: so these tests do switch instruction sets.
  EXPECT_TRUE(!ForceTarget::Has(HWY_AVX2) || !SameBits(y, fused));
}

TEST_P(GemmOfType, NanStaysInItsRow) {
  Product g(GetParam(), 20, 40, 30, 2);
  const Floats clean = g.Run();
  g.x[static_cast<size_t>(6 * g.x_stride + 4)] = kPoison;
  const Floats y = g.Run();
  for (int64_t r = 0; r < g.m; ++r) {
    const float* row = y.data() + r * g.y_stride;
    if (r == 6) {
      for (int64_t c = 0; c < g.n; ++c) EXPECT_TRUE(std::isnan(row[c]));
    } else {
      EXPECT_TRUE(SameBits(row, clean.data() + r * g.y_stride, static_cast<size_t>(g.n) * 4));
    }
  }
}

TEST_P(GemmOfType, UnitVectorsReadBackThePackedWeightsExactly) {
  const int64_t n = 75, k = 19;
  Product g(GetParam(), k, n, k, 21, false);
  for (int64_t r = 0; r < k; ++r) {
    for (int64_t i = 0; i < k; ++i) g.x[static_cast<size_t>(r * g.x_stride + i)] = r == i;
  }
  const Floats y = g.Run();
  for (int64_t r = 0; r < k; ++r) {
    for (int64_t c = 0; c < n; ++c) {
      EXPECT_EQ(y[static_cast<size_t>(r * g.y_stride + c)], g.w[static_cast<size_t>(c * k + r)]);
    }
  }
}

TEST_P(GemmOfType, RoundsOutputsToTheNearestBf16) {
  const Product g(GetParam(), 7, 50, 64, 9);
  const Floats exact = g.Run();
  Floats y;
  GemmParams p = g.Params(y);
  p.round_to_bf16 = true;
  ASSERT_TRUE(Gemm(p, {}).ok());
  for (int64_t r = 0; r < g.m; ++r) {
    for (int64_t c = 0; c < g.n; ++c) {
      const size_t at = static_cast<size_t>(r * g.y_stride + c);
      EXPECT_EQ(y[at], FromBf16(Bf16Bits(exact[at])));
    }
  }
}

TEST(GemmTest, RefusesNonsense) {
  const Product g(DType::kFloat32, 3, 10, 8, 1);
  Floats y;
  const auto refused = [&](auto change) {
    GemmParams p = g.Params(y);
    change(p);
    return Gemm(p, {}).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](GemmParams& p) { p.m = -1; }));
  EXPECT_TRUE(refused([](GemmParams& p) { p.w.n = -5; }));
  EXPECT_TRUE(refused([](GemmParams& p) { p.x_stride = 7; }));
  EXPECT_TRUE(refused([](GemmParams& p) { p.y_stride = 9; }));
  EXPECT_TRUE(refused([](GemmParams& p) { p.x = nullptr; }));
  EXPECT_TRUE(refused([](GemmParams& p) { p.y = nullptr; }));
  EXPECT_TRUE(refused([](GemmParams& p) { p.w.data = nullptr; }));
}

}  // namespace
}  // namespace anabranch::kernels
