#include "kernels/attention.h"
#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Rotation {
  int32_t heads, head_dim, rotary_dim;
  std::vector<int64_t> lengths;
  Sequences x;
  double theta = 10000;
  int64_t offset = 0;  // added to all positions
  bool round = false;

  Rotation(int32_t heads, int32_t head_dim, int32_t rotary_dim, std::vector<int64_t> n)
      : heads(heads), head_dim(head_dim), rotary_dim(rotary_dim), lengths(std::move(n)) {
    Random random(3);
    x = Sequences::Make(lengths, heads * head_dim, random);
  }
  Sequences Run(const Plan& plan, const Launch& launch = {}) const {
    Sequences out = Sequences::Poisoned(lengths, x.width);
    for (const LaunchPlan& one : plan) {
      const int64_t stride = x.width + 3;
      Packing packing(one);
      for (int64_t& at : packing.position) at += offset;
      Floats rows = x.Gather(one, stride);
      RopeParams p;
      p.rows = packing.rows(), p.position = packing.position.data();
      p.heads = heads, p.head_dim = head_dim, p.rotary_dim = rotary_dim, p.theta = theta;
      p.x = rows.data(), p.x_stride = stride, p.round_to_bf16 = round;
      EXPECT_TRUE(Rope(p, launch).ok());
      out.Scatter(one, rows, stride);
    }
    return out;
  }
};

// The angle is a float32 product of position and frequency, which pow makes exact to 2 units;
// cosine and sine move by at most that error of the angle.
void ExpectClose(const Rotation& r, const Sequences& got) {
  for (size_t seq = 0; seq < r.lengths.size(); ++seq) {
    for (int64_t t = 0; t < r.lengths[seq]; ++t) {
      for (int h = 0; h < r.heads; ++h) {
        const size_t at = static_cast<size_t>(t * r.x.width + static_cast<int64_t>(h) * r.head_dim);
        const size_t half = static_cast<size_t>(r.rotary_dim / 2);
        for (size_t i = 0; i < half; ++i) {
          const double f = std::pow(r.theta, -2.0 * static_cast<double>(i) / r.rotary_dim);
          const double angle = static_cast<double>(t + r.offset) * f;
          const double a = r.x.of[seq][at + i], b = r.x.of[seq][at + half + i];
          const double unit = r.round ? kBf16Unit : kUnit;
          // ln(theta) < 16 bounds what one rounding of the exponent does to the frequency.
          const double bound = (24 * kUnit * angle + 4 * unit) * (std::abs(a) + std::abs(b));
          ASSERT_NEAR(got.of[seq][at + i], a * std::cos(angle) - b * std::sin(angle), bound);
          ASSERT_NEAR(got.of[seq][at + half + i], b * std::cos(angle) + a * std::sin(angle), bound);
        }
        for (size_t i = 2 * half; i < static_cast<size_t>(r.head_dim); ++i) {
          ASSERT_EQ(got.of[seq][at + i], r.x.of[seq][at + i]);
        }
      }
    }
  }
}

TEST(RopeTest, MatchesDoublePrecision) {
  for (const auto& [dim, rotary] : std::vector<std::pair<int, int>>{
           {64, 64}, {64, 16}, {10, 6}, {2, 2}, {33, 32}, {5, 0}, {256, 256}, {300, 262}}) {
    for (int64_t offset : {0, 1000, 30000}) {
      Rotation r(3, dim, rotary, {4, 0, 1, 17});
      r.offset = offset;
      r.theta = offset == 1000 ? 1e6 : 10000;
      ExpectClose(r, r.Run({{{0, 0, 4}, {1, 0, 0}, {2, 0, 1}, {3, 0, 17}}}));
    }
  }
}

TEST(RopeTest, RoundsAsTheReferenceInBf16) {
  Rotation r(2, 32, 32, {20});
  r.round = true;
  for (float& v : r.x.of[0]) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    bits &= 0xFFFF0000u;
    std::memcpy(&v, &bits, 4);
  }
  ExpectClose(r, r.Run(EachAlone(r.lengths)));
}

TEST(RopeTest, AnySplitBatchAndThreadsGiveTheSameBits) {
  Random random(5);
  const Rotation r(4, 48, 32, {13, 3, 37});
  const Sequences alone = r.Run(EachAlone(r.lengths));
  const OddParallel parallel(3);
  for (const Plan& plan : OtherPlans(r.lengths, random)) {
    const Sequences got = r.Run(plan, {.parallel = &parallel});
    for (size_t i = 0; i < alone.of.size(); ++i) ASSERT_TRUE(SameBits(got.of[i], alone.of[i]));
  }
}

TEST(RopeTest, RefusesNonsense) {
  const int32_t row_start[] = {0, 1}, slot[] = {0};
  const int64_t position[] = {0};
  Floats x(64);
  RopeParams good;
  good.rows = {1, 1, 1, row_start, slot}, good.position = position;
  good.heads = 2, good.head_dim = 32, good.rotary_dim = 32, good.x = x.data(), good.x_stride = 64;
  EXPECT_TRUE(Rope(good, {}).ok());
  const auto refused = [&](auto change) {
    RopeParams p = good;
    change(p);
    return Rope(p, {}).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([](RopeParams& p) { p.rotary_dim = 31; }));
  EXPECT_TRUE(refused([](RopeParams& p) { p.rotary_dim = 34; }));
  EXPECT_TRUE(refused([](RopeParams& p) { p.theta = 0; }));
  EXPECT_TRUE(refused([](RopeParams& p) { p.x_stride = 63; }));
}

}  // namespace
}  // namespace anabranch::kernels
