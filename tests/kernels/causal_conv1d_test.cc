#include "kernels/causal_conv1d.h"

#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Result {
  Sequences out;
  Floats window;
  Floats kept;  // by place
  bool operator==(const Result& o) const {
    for (size_t i = 0; i < out.of.size(); ++i) {
      if (!SameBits(out.of[i], o.out.of[i])) return false;
    }
    return SameBits(window, o.window);
  }
};

struct Conv {
  int64_t channels;
  int32_t width;
  bool with_bias = true, silu = true, round = false;
  std::vector<int64_t> lengths;
  Sequences u;
  Floats weight, bias, window0;
  int64_t slot_stride;
  std::vector<int32_t> keep;  // rows of a launch

  Conv(int64_t channels, int32_t width, std::vector<int64_t> n, uint32_t seed)
      : channels(channels), width(width), lengths(std::move(n)) {
    Random random(seed);
    u = Sequences::Make(lengths, channels, random);
    weight = random.Normals(width * channels);
    bias = random.Normals(channels);
    slot_stride = (width - 1) * channels + 3;
    window0 = random.Normals((2 * static_cast<int64_t>(lengths.size()) + 1) * slot_stride);
  }

  absl::Status Launch1(const LaunchPlan& plan, const Launch& launch, Result& out) const {
    const int64_t us = u.width + 5, os = u.width + 2;
    const Packing packing(plan);
    const Floats ur = u.Gather(plan, us);
    Floats rows(static_cast<size_t>(packing.row_start.back() * os), kPoison);
    CausalConv1dParams p;
    p.rows = packing.rows();
    p.channels = channels, p.width = width;
    p.u = ur.data(), p.u_stride = us;
    p.weight = weight.data(), p.bias = with_bias ? bias.data() : nullptr;
    p.window = out.window.data(), p.window_slot_stride = slot_stride;
    p.out = rows.data(), p.out_stride = os;
    p.silu = silu, p.round_to_bf16 = round;
    const std::vector<int32_t> places = BackwardPlaces(keep.size());
    out.kept.assign(keep.size() * static_cast<size_t>(slot_stride), kPoison);
    p.checkpoints = {static_cast<int32_t>(keep.size()), keep.data(), places.data()};
    p.checkpoint_window = out.kept.data(), p.checkpoint_window_stride = slot_stride;
    const absl::Status status = CausalConv1d(p, launch);
    out.out.Scatter(plan, rows, os);
    return status;
  }

  Result Run(const Plan& plan, const Launch& launch = {}) const {
    Result out{Sequences::Poisoned(lengths, channels), window0, {}};
    for (const LaunchPlan& one : plan) EXPECT_TRUE(Launch1(one, launch, out).ok());
    return out;
  }
};

// Window and inputs of one channel, oldest first.
std::vector<double> History(const Conv& s, size_t seq, int64_t ch) {
  std::vector<double> out;
  const int64_t at = Packing::SlotOf(static_cast<int>(seq)) * s.slot_stride;
  for (int j = 0; j < s.width - 1; ++j) {
    out.push_back(s.window0[static_cast<size_t>(at + j * s.channels + ch)]);
  }
  for (int64_t t = 0; t < s.lengths[seq]; ++t) {
    out.push_back(s.u.of[seq][static_cast<size_t>(t * s.channels + ch)]);
  }
  return out;
}

void ExpectClose(const Conv& s, const Result& got) {
  for (size_t seq = 0; seq < s.lengths.size(); ++seq) {
    for (int64_t ch = 0; ch < s.channels; ++ch) {
      const std::vector<double> in = History(s, seq, ch);
      for (int64_t t = 0; t < s.lengths[seq]; ++t) {
        double y = s.with_bias ? s.bias[static_cast<size_t>(ch)] : 0, size = std::abs(y);
        for (int j = 0; j < s.width; ++j) {
          const double term =
              s.weight[static_cast<size_t>(j * s.channels + ch)] * in[static_cast<size_t>(t + j)];
          y += term;
          size += std::abs(term);
        }
        // width roundings; silu's slope is below 1.1 and itself costs a few units more.
        const double want = s.silu ? y / (1 + std::exp(-y)) : y;
        const double bound = 1.1 * (s.width + 1) * kUnit * size + 8 * kUnit * std::abs(want);
        ASSERT_NEAR(got.out.of[seq][static_cast<size_t>(t * s.channels + ch)], want, bound);
      }
      const int64_t at = Packing::SlotOf(static_cast<int>(seq)) * s.slot_stride;
      for (int j = 0; j < s.width - 1; ++j) {
        ASSERT_EQ(got.window[static_cast<size_t>(at + j * s.channels + ch)],
                  in[static_cast<size_t>(s.lengths[seq] + j)]);
      }
    }
  }
}

const int64_t kChannels[] = {1, 7, 16, 33, 127, 128, 129, 300};

TEST(CausalConv1dTest, MatchesDoublePrecisionAndKeepsTheLastInputs) {
  for (int64_t channels : kChannels) {
    for (int32_t width = 2; width <= 8; ++width) {
      Conv s(channels, width, {5, 0, 1, 2, 19}, static_cast<uint32_t>(channels + width));
      s.with_bias = width % 2 == 0;
      s.silu = width % 3 != 0;
      ExpectClose(s, s.Run({{{0, 0, 5}, {1, 0, 0}, {2, 0, 1}, {3, 0, 2}, {4, 0, 19}}}));
    }
  }
}

TEST(CausalConv1dTest, PortableBaselineIsRightToo) {
  const ForceTarget baseline(HWY_SCALAR);
  const Conv s(19, 4, {9}, 3);
  ExpectClose(s, s.Run(EachAlone(s.lengths)));
}

TEST(CausalConv1dTest, AnySplitAndBatchGivesTheSameBits) {
  for (int64_t channels : {33, 300}) {
    for (int32_t width : {2, 4, 8}) {
      Random random(5);
      const Conv s(channels, width, {13, 3, 37}, 17);
      const Result alone = s.Run(EachAlone(s.lengths));
      for (const Plan& plan : OtherPlans(s.lengths, random)) ASSERT_TRUE(s.Run(plan) == alone);
    }
  }
}

TEST(CausalConv1dTest, ThreadsAndInstructionSetsGiveTheSameBits) {
  const Conv s(300, 4, {13, 40}, 23);
  const Plan plan = {{{0, 0, 13}, {1, 0, 40}}};
  const Result serial = s.Run(plan);
  for (int threads : {2, 5}) {
    const OddParallel parallel(threads);
    EXPECT_TRUE(s.Run(plan, {.parallel = &parallel}) == serial);
  }
  if (ForceTarget::Has(HWY_AVX2)) {
    const ForceTarget avx2(HWY_AVX2);
    EXPECT_TRUE(s.Run(plan) == serial);
  }
}

TEST(CausalConv1dTest, NanStaysInItsSequenceAndChannel) {
  Conv s(20, 4, {6, 6}, 29);
  const Plan plan = {{{0, 0, 6}, {1, 0, 6}}};
  const Result clean = s.Run(plan);
  s.u.of[0][static_cast<size_t>(5 * 20 + 3)] = kPoison;
  const Result got = s.Run(plan);
  EXPECT_TRUE(SameBits(got.out.of[1], clean.out.of[1]));
  EXPECT_TRUE(std::isnan(got.out.of[0][5 * 20 + 3]));
  EXPECT_FALSE(std::isnan(got.out.of[0][5 * 20 + 4]));
}

TEST(CausalConv1dTest, RoundsOutputButNotWindow) {
  Conv s(20, 4, {9}, 31);
  const Result exact = s.Run(EachAlone(s.lengths));
  s.round = true;
  const Result rounded = s.Run(EachAlone(s.lengths));
  EXPECT_TRUE(SameBits(exact.window, rounded.window));
  for (size_t i = 0; i < exact.out.of[0].size(); ++i) {
    EXPECT_NEAR(rounded.out.of[0][i], exact.out.of[0][i], kBf16Unit * std::abs(exact.out.of[0][i]));
  }
  EXPECT_FALSE(SameBits(exact.out.of[0], rounded.out.of[0]));
}

TEST(CausalConv1dTest, CheckpointsAreTheWindowsOfShorterLaunches) {
  Conv s(21, 4, {13, 30, 0, 1}, 37);
  const Plan plan = {{{0, 0, 13}, {2, 0, 0}, {1, 0, 30}, {3, 0, 1}}};
  const Result without = s.Run(plan);
  s.keep = {0, 1, 5, 12, 13, 40, 42, 43};
  const Result got = s.Run(plan);
  EXPECT_TRUE(got == without) << "keeping a window changes nothing else";
  for (size_t i = 0; i < s.keep.size(); ++i) {
    const int row = s.keep[i], seq = row < 13 ? 0 : row < 43 ? 1 : 3;
    const int64_t from = seq == 0 ? 0 : seq == 1 ? 13 : 43;
    Conv shorter = s;
    shorter.keep.clear();
    const Result want = shorter.Run({{{seq, 0, row - from + 1}}});
    EXPECT_TRUE(
        SameBits(got.kept.data() + static_cast<int64_t>(s.keep.size() - 1 - i) * s.slot_stride,
                 want.window.data() + Packing::SlotOf(seq) * s.slot_stride,
                 static_cast<size_t>(s.slot_stride - 3) * 4))
        << "row " << row;
  }
}

TEST(CausalConv1dTest, RefusesNonsense) {
  const Conv s(8, 4, {3}, 1);
  Result out{Sequences::Poisoned(s.lengths, s.channels), s.window0, {}};
  const auto refused = [&](auto change) {
    Conv bad = s;
    change(bad);
    return bad.Launch1({{0, 0, 3}}, {}, out).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](Conv&) {}));
  EXPECT_TRUE(refused([](Conv& b) { b.width = 1; }));
  EXPECT_TRUE(refused([](Conv& b) { b.width = 9; }));
  EXPECT_TRUE(refused([](Conv& b) { b.channels = -8; }));
}

}  // namespace
}  // namespace anabranch::kernels
