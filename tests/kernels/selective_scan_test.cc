#include "kernels/selective_scan.h"

#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Result {
  Sequences y;
  Floats state;
  std::vector<double> t_sum;
  Floats kept;  // by place
  std::vector<double> kept_t;
  bool operator==(const Result& o) const {
    for (size_t i = 0; i < y.of.size(); ++i) {
      if (!SameBits(y.of[i], o.y.of[i])) return false;
    }
    return SameBits(state, o.state) && SameBits(t_sum, o.t_sum);
  }
};

struct Scan {
  int64_t channels;
  int32_t state_dim;
  bool gate = true, round = false;
  std::vector<int64_t> lengths;
  Sequences u, dt, b, c, z;
  Floats a, d, dt_bias, state0;
  std::vector<double> t0;
  int64_t slot_stride, t_stride;
  std::vector<int32_t> keep;  // rows of a launch

  Scan(int64_t channels, int32_t state_dim, std::vector<int64_t> n, uint32_t seed)
      : channels(channels), state_dim(state_dim), lengths(std::move(n)) {
    Random random(seed);
    u = Sequences::Make(lengths, channels, random);
    dt = Sequences::Make(lengths, channels, random, 2);
    b = Sequences::Make(lengths, state_dim, random);
    c = Sequences::Make(lengths, state_dim, random);
    z = Sequences::Make(lengths, channels, random, 3);
    for (int64_t i = 0; i < channels * state_dim; ++i) a.push_back(-random.Uniform(0.01f, 16));
    d = random.Normals(channels);
    dt_bias = random.Normals(channels);
    slot_stride = channels * state_dim + 3;
    t_stride = channels + 2;
    const int64_t slots = 2 * static_cast<int64_t>(lengths.size()) + 1;
    state0 = random.Normals(slots * slot_stride);
    for (int64_t i = 0; i < slots * t_stride; ++i) t0.push_back(random.Uniform(0, 9));
  }

  absl::Status Launch1(const LaunchPlan& plan, const Launch& launch, Result& out) const {
    const int64_t us = u.width + 1, ds = u.width + 2, zs = u.width + 3, ys = u.width + 4;
    const int64_t bs = b.width + 5, cs = b.width + 6;
    const Packing packing(plan);
    const Floats ur = u.Gather(plan, us), dr = dt.Gather(plan, ds), zr = z.Gather(plan, zs);
    const Floats br = b.Gather(plan, bs), cr = c.Gather(plan, cs);
    Floats yr(static_cast<size_t>(packing.row_start.back() * ys), kPoison);
    SelectiveScanParams p;
    p.rows = packing.rows();
    p.channels = channels, p.state_dim = state_dim;
    p.u = ur.data(), p.dt = dr.data(), p.b = br.data(), p.c = cr.data();
    p.z = gate ? zr.data() : nullptr;
    p.u_stride = us, p.dt_stride = ds, p.b_stride = bs, p.c_stride = cs, p.z_stride = zs;
    p.a = a.data(), p.d = d.data(), p.dt_bias = dt_bias.data();
    p.state = out.state.data(), p.state_slot_stride = slot_stride;
    p.t_sum = out.t_sum.data(), p.t_slot_stride = t_stride;
    p.y = yr.data(), p.y_stride = ys, p.round_to_bf16 = round;
    const std::vector<int32_t> places = BackwardPlaces(keep.size());
    out.kept.assign(keep.size() * static_cast<size_t>(slot_stride), kPoison);
    out.kept_t.assign(keep.size() * static_cast<size_t>(t_stride), kPoison);
    p.checkpoints = {static_cast<int32_t>(keep.size()), keep.data(), places.data()};
    p.checkpoint_state = out.kept.data(), p.checkpoint_state_stride = slot_stride;
    p.checkpoint_t = out.kept_t.data(), p.checkpoint_t_stride = t_stride;
    const absl::Status status = SelectiveScan(p, launch);
    out.y.Scatter(plan, yr, ys);
    return status;
  }

  Result Run(const Plan& plan, const Launch& launch = {}) const {
    Result out{Sequences::Poisoned(lengths, channels), state0, t0, {}, {}};
    for (const LaunchPlan& one : plan) EXPECT_TRUE(Launch1(one, launch, out).ok());
    return out;
  }
};

double Silu(double z) { return z / (1 + std::exp(-z)); }

// As in ssd_scan_test: the bound follows the recurrence, 16 roundings a step.
void ExpectChannelClose(const Scan& s, const Result& got, size_t seq, int64_t ch) {
  const int64_t slot = Packing::SlotOf(static_cast<int>(seq)), dim = s.state_dim;
  const int64_t at = slot * s.slot_stride + ch * dim;
  std::vector<double> h(s.state0.begin() + at, s.state0.begin() + at + dim), size, error;
  for (double v : h) size.push_back(std::abs(v)), error.push_back(0);
  double t_sum = s.t0[static_cast<size_t>(slot * s.t_stride + ch)];
  for (int64_t t = 0; t < s.lengths[seq]; ++t) {
    const size_t i = static_cast<size_t>(t * s.channels + ch);
    const double raw = static_cast<double>(s.dt.of[seq][i]) + s.dt_bias[static_cast<size_t>(ch)];
    const double dt = raw > 20 ? raw : std::log1p(std::exp(raw));
    const double u = s.u.of[seq][i];
    t_sum += dt;
    double y = s.d[static_cast<size_t>(ch)] * u, y_size = std::abs(y), y_error = 0;
    for (int64_t n = 0; n < dim; ++n) {
      const size_t k = static_cast<size_t>(n);
      const double decay = std::exp(dt * s.a[static_cast<size_t>(ch * dim + n)]);
      const double in = dt * u * s.b.of[seq][static_cast<size_t>(t * dim + n)];
      const double c = s.c.of[seq][static_cast<size_t>(t * dim + n)];
      error[k] = decay * error[k] + 16 * kUnit * (size[k] + std::abs(in));
      h[k] = decay * h[k] + in;
      size[k] = decay * size[k] + std::abs(in);
      y += h[k] * c;
      y_size += size[k] * std::abs(c);
      y_error += error[k] * std::abs(c);
    }
    const double gate = s.gate ? Silu(s.z.of[seq][i]) : 1.0;
    const double bound = y_error + static_cast<double>(dim + 10) * kUnit * y_size;
    ASSERT_NEAR(got.y.of[seq][i], y * gate, bound * std::abs(gate))
        << "seq " << seq << " token " << t << " channel " << ch;
  }
  for (int64_t n = 0; n < dim; ++n) {
    const size_t k = static_cast<size_t>(n);
    ASSERT_NEAR(got.state[static_cast<size_t>(at + n)], h[k], error[k] + kUnit * size[k]);
  }
  ASSERT_NEAR(got.t_sum[static_cast<size_t>(slot * s.t_stride + ch)], t_sum,
              16 * kUnit * (1 + t_sum));
}

void ExpectClose(const Scan& s, const Result& got) {
  for (size_t seq = 0; seq < s.lengths.size(); ++seq) {
    for (int64_t ch = 0; ch < s.channels; ++ch) ExpectChannelClose(s, got, seq, ch);
  }
}

struct Shape {
  int64_t channels;
  int32_t state_dim;
};
const Shape kShapes[] = {{48, 16}, {1, 16}, {37, 16}, {18, 1},  {17, 7},   {5, 32},
                         {9, 33},  {6, 64}, {3, 100}, {5, 128}, {21, 256}, {70, 15}};

TEST(SelectiveScanTest, MatchesDoublePrecision) {
  for (const Shape& shape : kShapes) {
    Scan s(shape.channels, shape.state_dim, {5, 0, 1, 70}, 7);
    s.gate = shape.channels % 2 == 1;
    ExpectClose(s, s.Run({{{0, 0, 5}, {1, 0, 0}, {2, 0, 1}, {3, 0, 70}}}));
  }
}

TEST(SelectiveScanTest, PortableBaselineIsRightToo) {
  const ForceTarget baseline(HWY_SCALAR);
  const Scan s(19, 16, {9}, 3);
  ExpectClose(s, s.Run(EachAlone(s.lengths)));
}

TEST(SelectiveScanTest, AnySplitAndBatchGivesTheSameBits) {
  for (const Shape& shape : kShapes) {
    Random random(5);
    const Scan s(shape.channels, shape.state_dim, {13, 3, 37}, 17);
    const Result alone = s.Run(EachAlone(s.lengths));
    for (const Plan& plan : OtherPlans(s.lengths, random)) ASSERT_TRUE(s.Run(plan) == alone);
  }
}

TEST(SelectiveScanTest, ThreadsAndInstructionSetsGiveTheSameBits) {
  for (const Shape& shape : kShapes) {
    const Scan s(shape.channels, shape.state_dim, {13, 40}, 23);
    const Plan plan = {{{0, 0, 13}, {1, 0, 40}}};
    const Result serial = s.Run(plan);
    for (int threads : {2, 5}) {
      const OddParallel parallel(threads);
      EXPECT_TRUE(s.Run(plan, {.parallel = &parallel}) == serial);
    }
    if (ForceTarget::Has(HWY_AVX2)) {
      const ForceTarget avx2(HWY_AVX2);
      EXPECT_TRUE(s.Run(plan) == serial) << "AVX2, state_dim " << shape.state_dim;
    }
  }
}

TEST(SelectiveScanTest, NanStaysInItsSequenceAndOtherSlotsAreUntouched) {
  Scan s(20, 16, {6, 6, 6}, 29);
  const Plan plan = {{{0, 0, 6}, {1, 0, 6}, {2, 0, 6}}};
  const Result clean = s.Run(plan);
  s.u.of[1][3] = s.b.of[1][2] = s.dt.of[1][1] = s.z.of[1][7] = kPoison;
  const Result got = s.Run(plan);
  const size_t bytes = static_cast<size_t>(s.slot_stride) * 4;
  for (int seq : {0, 2}) {
    EXPECT_TRUE(SameBits(got.y.of[static_cast<size_t>(seq)], clean.y.of[static_cast<size_t>(seq)]));
    const int64_t at = Packing::SlotOf(seq) * s.slot_stride;
    EXPECT_TRUE(SameBits(got.state.data() + at, clean.state.data() + at, bytes));
  }
  for (int64_t slot : {0, 2, 4, 6}) {
    const int64_t at = slot * s.slot_stride;
    EXPECT_TRUE(SameBits(got.state.data() + at, s.state0.data() + at, bytes));
  }
  // u, dt and z poison their own channels; the last token still shows the first two.
  EXPECT_TRUE(std::isnan(got.y.of[1][static_cast<size_t>(5 * 20 + 3)]));
  EXPECT_TRUE(std::isnan(got.y.of[1][static_cast<size_t>(5 * 20 + 1)]));
}

TEST(SelectiveScanTest, RoundsOutputButNotState) {
  Scan s(20, 16, {9}, 31);
  const Result exact = s.Run(EachAlone(s.lengths));
  s.round = true;
  const Result rounded = s.Run(EachAlone(s.lengths));
  EXPECT_TRUE(SameBits(exact.state, rounded.state));
  for (size_t i = 0; i < exact.y.of[0].size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &rounded.y.of[0][i], 4);
    EXPECT_EQ(bits & 0xFFFF, 0u);
    EXPECT_NEAR(rounded.y.of[0][i], exact.y.of[0][i], 2 * kBf16Unit * std::abs(exact.y.of[0][i]));
  }
}

TEST(SelectiveScanTest, CheckpointsAreTheStatesOfShorterLaunches) {
  Scan s(19, 16, {13, 70, 0, 1}, 37);
  const Plan plan = {{{0, 0, 13}, {2, 0, 0}, {1, 0, 70}, {3, 0, 1}}};
  const Result without = s.Run(plan);
  s.keep = {0, 5, 12, 13, 14, 14, 77, 82, 83};
  const OddParallel parallel(2);
  const Result got = s.Run(plan, {.parallel = &parallel});
  EXPECT_TRUE(got == without) << "keeping a state changes nothing else";
  for (size_t i = 0; i < s.keep.size(); ++i) {
    const int row = s.keep[i], seq = row < 13 ? 0 : row < 83 ? 1 : 3;
    const int64_t from = seq == 0 ? 0 : seq == 1 ? 13 : 83;
    Scan shorter = s;
    shorter.keep.clear();
    const Result want = shorter.Run({{{seq, 0, row - from + 1}}});
    const auto place = static_cast<int64_t>(s.keep.size() - 1 - i);
    const int64_t slot = Packing::SlotOf(seq), cells = s.slot_stride - 3, t_width = s.t_stride - 2;
    EXPECT_TRUE(SameBits(got.kept.data() + place * s.slot_stride,
                         want.state.data() + slot * s.slot_stride, static_cast<size_t>(cells) * 4))
        << "row " << row;
    EXPECT_TRUE(SameBits(got.kept_t.data() + place * s.t_stride,
                         want.t_sum.data() + slot * s.t_stride, static_cast<size_t>(t_width) * 8))
        << "row " << row;
  }
}

TEST(SelectiveScanTest, RefusesNonsense) {
  const Scan s(8, 16, {3}, 1);
  Result out{Sequences::Poisoned(s.lengths, s.channels), s.state0, s.t0, {}, {}};
  const auto refused = [&](auto change) {
    Scan bad = s;
    change(bad);
    return bad.Launch1({{0, 0, 3}}, {}, out).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](Scan&) {}));
  EXPECT_TRUE(refused([](Scan& b) { b.state_dim = 257; }));
  EXPECT_TRUE(refused([](Scan& b) { b.state_dim = 0; }));
  EXPECT_TRUE(refused([](Scan& b) { b.channels = 0; }));
  EXPECT_TRUE(refused([](Scan& b) { b.slot_stride = -1; }));
}

}  // namespace
}  // namespace anabranch::kernels
