// States in bfloat16 and int8: the rounding itself, and that the scans do nothing else to a state
// than round it where a launch ends.
#include "kernels/state_rounding.h"

#include <cmath>
#include <cstring>
#include <functional>

#include "gtest/gtest.h"
#include "kernels/int8_state.h"
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

// A tensor of `elements` as int8 slots hold it, and back.
std::vector<int8_t> Int8Of(const Floats& values, const std::function<uint32_t(uint32_t)>& noise) {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<int8_t> slot(static_cast<size_t>(Int8StateBytes(count)));
  auto* scales = reinterpret_cast<uint16_t*>(slot.data() + count);
  for (int64_t i = 0; i < count; i += kInt8Group) {
    const auto of_group = [&](uint32_t quad) { return noise(static_cast<uint32_t>(i / 4) + quad); };
    scales[i / kInt8Group] = FloatsToInt8(values.data() + i, of_group, slot.data() + i);
  }
  return slot;
}
std::vector<int8_t> Int8Of(const Floats& values, uint32_t key) {
  return Int8Of(values, [key](uint32_t quad) { return RoundingBits(key, quad); });
}
Floats FloatsOf(const std::vector<int8_t>& slot, size_t count) {
  Floats values(count);
  const auto* scales = reinterpret_cast<const uint16_t*>(slot.data() + count);
  for (size_t i = 0; i < count; i += kInt8Group) {
    Int8ToFloats(slot.data() + i, scales[i / kInt8Group], values.data() + i);
  }
  return values;
}

TEST(Int8StateTest, IsRightOnAverage) {
  Random random(11);
  for (int i = 0; i < 50; ++i) {
    Floats group = random.Normals(kInt8Group);
    const float size = std::exp2(random.Uniform(-60, 60));
    float most = 0;
    for (float& v : group) most = std::max(most, std::fabs(v *= size));
    const double unit = 1.01 * most / 127;
    std::vector<double> sums(kInt8Group);
    constexpr int kDraws = 5000;
    for (int draw = 0; draw < kDraws; ++draw) {
      const Floats back = FloatsOf(Int8Of(group, RoundingKey(i, draw)), kInt8Group);
      for (size_t n = 0; n < back.size(); ++n) {
        ASSERT_LE(std::abs(back[n] - group[n]), unit);
        sums[n] += back[n];
      }
    }
    for (size_t n = 0; n < group.size(); ++n) {  // 6 deviations of the mean, and the 256th part
      const double near = unit * (6 * 0.5 / std::sqrt(kDraws) + 1.0 / 512);
      EXPECT_NEAR(sums[n] / kDraws, group[n], near);
    }
  }
}

TEST(Int8StateTest, WhatItHoldsStaysAndTheLargestIsWhole) {
  Random random(12);
  for (int i = 0; i < 200; ++i) {
    std::vector<int8_t> codes(kInt8Group + 2);
    for (int n = 0; n < kInt8Group; ++n) {
      codes[static_cast<size_t>(n)] = static_cast<int8_t>(random.Uniform(-127.99f, 127.99f));
    }
    codes[3] = i % 2 == 0 ? 127 : -127;
    const uint16_t scale = Int8Scale(std::exp2(random.Uniform(-90, 90)));
    std::memcpy(codes.data() + kInt8Group, &scale, sizeof(scale));
    EXPECT_EQ(Int8Of(FloatsOf(codes, kInt8Group), 77 + i), codes) << i;
  }
}

TEST(Int8StateTest, AGroupThatIsNotFiniteIsLostAsAWholeAndNoOther) {
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Floats values(3 * kInt8Group, 0.0f);
    values[kInt8Group - 1] = 2.0f, values[kInt8Group + 5] = bad;
    const Floats back = FloatsOf(Int8Of(values, 5), values.size());
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(std::isnan(back[i]), i / kInt8Group == 1) << i;
    }
    EXPECT_NEAR(back[kInt8Group - 1], 2.0f, 0.02f);
    EXPECT_EQ(back.back(), 0.0f);
  }
}

// One launch over two sequences: with a bfloat16 state everything is what it is in float32, but the
// states are rounded.
TEST(StateRoundingTest, AScanRoundsWhereItEnds) {
  Random random(3);
  constexpr int kHeads = 3, kHead = 5, kDim = 32, kRows = 9;
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
    const int64_t stride = state.dtype == DType::kInt8 ? Int8StateBytes(kSlot) : kSlot;
    std::vector<double> t(2 * kHeads), kept_t(2 * kHeads);
    SsdScanParams p;
    p.rows = {2, kRows, 5, row_start.data(), slot.data()};
    p.heads = kHeads, p.head_dim = kHead, p.state_dim = kDim;
    p.x = x.data(), p.b = b.data(), p.c = c.data(), p.dt = dt.data();
    p.x_stride = p.y_stride = kHeads * kHead, p.b_stride = p.c_stride = kDim, p.dt_stride = kHeads;
    p.a = a.data(), p.d = d.data(), p.dt_bias = bias.data(), p.dt_hi = 10;
    p.state = state, p.state_slot_stride = p.checkpoint_state_stride = stride;
    p.state_scales = kSlot;
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

  // The same in int8.
  constexpr int64_t kBytes = Int8StateBytes(kSlot);
  std::vector<int8_t> small, small_kept(2 * kBytes);
  for (int of = 0; of < 2; ++of) {
    const std::vector<int8_t> slot_of = Int8Of(random.Normals(kSlot), 0);
    small.insert(small.end(), slot_of.begin(), slot_of.end());
    const Floats wide = FloatsOf(slot_of, kSlot);
    std::copy(wide.begin(), wide.end(), full.begin() + of * kSlot);
  }
  Floats small_y;
  run(full.data(), full_kept.data(), y);
  run({small.data(), DType::kInt8}, {small_kept.data(), DType::kInt8}, small_y);
  EXPECT_EQ(small_y, y);
  const auto rounded = [&](const Floats& from, int64_t of, const uint32_t* with) {
    return Int8Of({from.begin() + of * kSlot, from.begin() + (of + 1) * kSlot}, with[of]);
  };
  for (int64_t of = 0; of < 2; ++of) {
    const auto slot_of = [&](const std::vector<int8_t>& all) {
      return std::vector<int8_t>(all.begin() + of * kBytes, all.begin() + (of + 1) * kBytes);
    };
    EXPECT_EQ(slot_of(small), rounded(full, of, keys));
    EXPECT_EQ(slot_of(small_kept), rounded(full_kept, of, kept_keys));
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
    p.state_scales = kChannels * kDim;
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

  std::vector<int8_t> small(Int8StateBytes(kChannels * kDim));
  full.assign(full.size(), 0);
  Floats small_y;
  run(full.data(), y);
  run({small.data(), DType::kInt8}, small_y);
  EXPECT_EQ(small_y, y);
  EXPECT_EQ(small, Int8Of(full, RoundingKey(9, 18)));
}

}  // namespace
}  // namespace anabranch::kernels
