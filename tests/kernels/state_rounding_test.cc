// States in bfloat16: the rounding itself, and that the scans do nothing else to a state than round
// it where a launch ends.
#include "kernels/state_rounding.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/selective_scan.h"
#include "kernels/ssd_scan.h"
#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace kernels::testing;  // NOLINT: the helpers of this folder

float Widened(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

TEST(StateRoundingTest, IsRightOnAverage) {
  Random random(1);
  for (int i = 0; i < 50; ++i) {
    const float value = random.Normal() * std::exp2(random.Uniform(-30, 30));
    double sum = 0;
    constexpr int kDraws = 20000;
    const double ulp = std::exp2(std::floor(std::log2(std::abs(value))) - 7);
    for (int draw = 0; draw < kDraws; ++draw) {
      const float rounded = Widened(RoundElement(value, RoundingKey(i, draw / 100), draw % 100));
      ASSERT_LE(std::abs(rounded - value), ulp);
      sum += rounded;
    }
    // A draw's standard deviation is at most half an ulp: this is 6 of the mean's.
    EXPECT_NEAR(sum / kDraws, value, 6 * 0.5 * ulp / std::sqrt(kDraws)) << value;
  }
}

TEST(StateRoundingTest, WhatFitsAndWhatIsNoNumberStays) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (uint32_t noise : {0u, 1u, 0x8000u, 0xffffu}) {
    for (float exact : {0.0f, -0.0f, 1.0f, -2.5f, 1e30f * 0, infinity, -infinity}) {
      EXPECT_EQ(std::bit_cast<uint32_t>(Widened(RoundToBf16At(exact, noise))),
                std::bit_cast<uint32_t>(exact));
    }
    EXPECT_TRUE(std::isnan(Widened(RoundToBf16At(std::nanf(""), noise))));
    EXPECT_TRUE(std::isnan(Widened(RoundToBf16At(std::bit_cast<float>(0x7f800001u), noise))));
  }
}

// One launch over two sequences: with a bfloat16 state everything is what it is in float32, but the
// states are rounded.
TEST(StateRoundingTest, AScanRoundsWhereItEnds) {
  Random random(3);
  constexpr int kHeads = 3, kHead = 5, kDim = 20, kRows = 9;
  constexpr int64_t kSlot = kHeads * kHead * kDim;
  const std::vector<int32_t> row_start = {0, 4, kRows}, slot = {1, 0}, keep = {1, 6},
                             place = {1, 0};
  const std::vector<int64_t> positions = {70, 0};
  const Floats x = random.Normals(kRows * kHeads * kHead), b = random.Normals(kRows * kDim);
  const Floats c = random.Normals(kRows * kDim), dt = random.Normals(kRows * kHeads);
  const Floats a(kHeads, -0.7f), d = random.Normals(kHeads), bias(kHeads, -1.0f);
  std::vector<uint16_t> half, half_kept(2 * kSlot);
  Floats full, full_kept(2 * kSlot);
  for (float v : random.Normals(2 * kSlot)) {
    half.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16));
    full.push_back(Widened(half.back()));
  }
  const auto run = [&](Acts state, Acts kept, Floats& y) {
    std::vector<double> t(2 * kHeads), kept_t(2 * kHeads);
    SsdScanParams p;
    p.rows = {2, kRows, 5, row_start.data(), slot.data()};
    p.heads = kHeads, p.head_dim = kHead, p.state_dim = kDim;
    p.x = x.data(), p.b = b.data(), p.c = c.data(), p.dt = dt.data();
    p.x_stride = p.y_stride = kHeads * kHead, p.b_stride = p.c_stride = kDim, p.dt_stride = kHeads;
    p.a = a.data(), p.d = d.data(), p.dt_bias = bias.data(), p.dt_hi = 10;
    p.state = state, p.state_slot_stride = p.checkpoint_state_stride = kSlot;
    p.t_sum = t.data(), p.t_slot_stride = p.checkpoint_t_stride = kHeads;
    p.positions = positions.data(), p.rounding_seed = 8;
    p.checkpoints = {2, keep.data(), place.data()};
    p.checkpoint_state = kept, p.checkpoint_t = kept_t.data();
    y.assign(kRows * kHeads * kHead, 0);
    p.y = y.data();
    const absl::Status status = SsdScan(p, {});
    EXPECT_TRUE(status.ok()) << status;
  };
  Floats y, half_y;
  run(full.data(), full_kept.data(), y);
  run({half.data(), DType::kBFloat16}, {half_kept.data(), DType::kBFloat16}, half_y);
  EXPECT_EQ(half_y, y);
  const uint32_t keys[] = {RoundingKey(8, 5), RoundingKey(8, 74)};  // of slots 0 and 1
  const uint32_t kept_keys[] = {RoundingKey(8, 3), RoundingKey(8, 72)};
  for (int64_t i = 0; i < 2 * kSlot; ++i) {
    const auto at = static_cast<size_t>(i);
    const auto index = static_cast<uint32_t>(i % kSlot);
    ASSERT_EQ(half[at], RoundElement(full[at], keys[i / kSlot], index)) << i;
    ASSERT_EQ(half_kept[at], RoundElement(full_kept[at], kept_keys[i / kSlot], index)) << i;
  }
}

TEST(StateRoundingTest, AMamba1ScanRoundsWhereItEnds) {
  Random random(4);
  constexpr int kChannels = 37, kDim = 16, kRows = 6;
  const std::vector<int32_t> row_start = {0, kRows}, slot = {0};
  const std::vector<int64_t> positions = {12};
  const Floats u = random.Normals(kRows * kChannels), dt = random.Normals(kRows * kChannels);
  const Floats b = random.Normals(kRows * kDim), c = random.Normals(kRows * kDim);
  const Floats a(kChannels * kDim, -0.7f), d = random.Normals(kChannels), bias(kChannels, -1.0f);
  std::vector<uint16_t> half(kChannels * kDim);
  Floats full(kChannels * kDim);
  const auto run = [&](Acts state, Floats& y) {
    std::vector<double> t(kChannels);
    SelectiveScanParams p;
    p.rows = {1, kRows, kRows, row_start.data(), slot.data()};
    p.channels = kChannels, p.state_dim = kDim;
    p.u = u.data(), p.dt = dt.data(), p.b = b.data(), p.c = c.data();
    p.u_stride = p.dt_stride = p.y_stride = kChannels, p.b_stride = p.c_stride = kDim;
    p.a = a.data(), p.d = d.data(), p.dt_bias = bias.data();
    p.state = state, p.state_slot_stride = kChannels * kDim;
    p.t_sum = t.data(), p.t_slot_stride = kChannels;
    p.positions = positions.data(), p.rounding_seed = 9;
    y.assign(kRows * kChannels, 0);
    p.y = y.data();
    const absl::Status status = SelectiveScan(p, {});
    EXPECT_TRUE(status.ok()) << status;
  };
  Floats y, half_y;
  run(full.data(), y);
  run({half.data(), DType::kBFloat16}, half_y);
  EXPECT_EQ(half_y, y);
  for (size_t i = 0; i < half.size(); ++i) {
    ASSERT_EQ(half[i], RoundElement(full[i], RoundingKey(9, 18), static_cast<uint32_t>(i))) << i;
  }
}

}  // namespace
}  // namespace anabranch::kernels
