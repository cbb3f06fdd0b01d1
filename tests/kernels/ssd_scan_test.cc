#include "kernels/ssd_scan.h"

#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Shape {
  int32_t heads, head_dim, state_dim, groups;
};

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
  Shape shape;
  std::vector<int64_t> lengths;
  Sequences x, b, c, dt;
  Floats a, d, dt_bias, state0;
  std::vector<double> t0;
  float lo = 0, hi = std::numeric_limits<float>::infinity();
  int64_t slot_stride, t_stride;
  std::vector<int32_t> keep;  // rows of a launch
  bool round = false;

  Scan(Shape s, std::vector<int64_t> n, uint32_t seed) : shape(s), lengths(std::move(n)) {
    Random random(seed);
    x = Sequences::Make(lengths, s.heads * s.head_dim, random);
    b = Sequences::Make(lengths, s.groups * s.state_dim, random);
    c = Sequences::Make(lengths, s.groups * s.state_dim, random);
    dt = Sequences::Make(lengths, s.heads, random, 2);
    for (int i = 0; i < s.heads; ++i) a.push_back(-random.Uniform(0.01f, 4));
    d = random.Normals(s.heads);
    dt_bias = random.Normals(s.heads);
    slot_stride = s.heads * s.head_dim * s.state_dim + 7;
    t_stride = s.heads + 1;
    const int64_t slots = 2 * static_cast<int64_t>(lengths.size()) + 1;
    state0 = random.Normals(slots * slot_stride);
    for (int64_t i = 0; i < slots * t_stride; ++i) t0.push_back(random.Uniform(0, 9));
  }

  absl::Status Launch1(const LaunchPlan& plan, const Launch& launch, Result& out) const {
    const int64_t xs = x.width + 3, bs = b.width + 1, cs = c.width + 2, ds = dt.width + 5;
    const int64_t ys = x.width + 4;
    const Packing packing(plan);
    const Floats xr = x.Gather(plan, xs), br = b.Gather(plan, bs), cr = c.Gather(plan, cs);
    const Floats dr = dt.Gather(plan, ds);
    Floats yr(static_cast<size_t>(packing.row_start.back() * ys), kPoison);
    SsdScanParams p;
    p.rows = packing.rows();
    p.heads = shape.heads, p.head_dim = shape.head_dim;
    p.state_dim = shape.state_dim, p.groups = shape.groups;
    p.x = xr.data(), p.b = br.data(), p.c = cr.data(), p.dt = dr.data();
    p.x_stride = xs, p.b_stride = bs, p.c_stride = cs, p.dt_stride = ds;
    p.a = a.data(), p.d = d.data(), p.dt_bias = dt_bias.data();
    p.dt_lo = lo, p.dt_hi = hi;
    p.state = out.state.data(), p.state_slot_stride = slot_stride;
    p.t_sum = out.t_sum.data(), p.t_slot_stride = t_stride;
    p.y = yr.data(), p.y_stride = ys;
    p.round_to_bf16 = round;
    const std::vector<int32_t> places = BackwardPlaces(keep.size());
    out.kept.assign(keep.size() * static_cast<size_t>(slot_stride), kPoison);
    out.kept_t.assign(keep.size() * static_cast<size_t>(t_stride), kPoison);
    p.checkpoints = {static_cast<int32_t>(keep.size()), keep.data(), places.data()};
    p.checkpoint_state = out.kept.data(), p.checkpoint_state_stride = slot_stride;
    p.checkpoint_t = out.kept_t.data(), p.checkpoint_t_stride = t_stride;
    const absl::Status status = SsdScan(p, launch);
    out.y.Scatter(plan, yr, ys);
    return status;
  }

  Result Run(const Plan& plan, const Launch& launch = {}) const {
    Result out{Sequences::Poisoned(lengths, x.width), state0, t0, {}, {}};
    for (const LaunchPlan& one : plan) EXPECT_TRUE(Launch1(one, launch, out).ok());
    return out;
  }
};

// One head of one sequence in double precision, with a bound on the error of the float kernel:
// each step's decay and input carry a few roundings (8 covers softplus, exp and two products; the
// decay's own error is relative to dt * A, and v * exp(-v) < 1), and the final sum n + 2 more.
void ExpectHeadClose(const Scan& s, const Result& got, size_t seq, int head) {
  const Shape& sh = s.shape;
  const int group = head / (sh.heads / sh.groups);
  const int64_t slot = Packing::SlotOf(static_cast<int>(seq));
  const int64_t at = slot * s.slot_stride + static_cast<int64_t>(head) * sh.head_dim * sh.state_dim;
  const size_t cells = static_cast<size_t>(sh.head_dim) * static_cast<size_t>(sh.state_dim);
  std::vector<double> state(s.state0.begin() + at,
                            s.state0.begin() + at + static_cast<int64_t>(cells));
  std::vector<double> size(cells), error(cells, 0.0);
  for (size_t i = 0; i < cells; ++i) size[i] = std::abs(state[i]);
  double t_sum = s.t0[static_cast<size_t>(slot * s.t_stride + head)];
  for (int64_t t = 0; t < s.lengths[seq]; ++t) {
    const double raw = static_cast<double>(s.dt.of[seq][static_cast<size_t>(t * sh.heads + head)]) +
                       s.dt_bias[static_cast<size_t>(head)];
    const double soft = raw > 20 ? raw : std::log1p(std::exp(raw));
    const double dt = std::min<double>(std::max<double>(soft, s.lo), s.hi);
    const double decay = std::exp(dt * s.a[static_cast<size_t>(head)]);
    t_sum += dt;
    const float* b = s.b.of[seq].data() + t * s.b.width + group * sh.state_dim;
    const float* c = s.c.of[seq].data() + t * s.c.width + group * sh.state_dim;
    for (int r = 0; r < sh.head_dim; ++r) {
      const size_t xi = static_cast<size_t>(t * s.x.width + head * sh.head_dim + r);
      const double x = s.x.of[seq][xi];
      double y = s.d[static_cast<size_t>(head)] * x, y_size = std::abs(y), y_error = 0;
      for (int n = 0; n < sh.state_dim; ++n) {
        const size_t i = static_cast<size_t>(r * sh.state_dim + n);
        const double in = dt * x * b[n];
        error[i] = decay * error[i] + 16 * kUnit * (size[i] + std::abs(in));
        state[i] = decay * state[i] + in;
        size[i] = decay * size[i] + std::abs(in);
        y += state[i] * c[n];
        y_size += size[i] * std::abs(c[n]);
        y_error += error[i] * std::abs(c[n]);
      }
      ASSERT_NEAR(got.y.of[seq][xi], y, y_error + (sh.state_dim + 2) * kUnit * y_size)
          << "seq " << seq << " token " << t << " head " << head << " row " << r;
    }
  }
  for (size_t i = 0; i < cells; ++i) {
    ASSERT_NEAR(got.state[static_cast<size_t>(at) + i], state[i], error[i] + kUnit * size[i]);
  }
  ASSERT_NEAR(got.t_sum[static_cast<size_t>(slot * s.t_stride + head)], t_sum,
              16 * kUnit * (1 + t_sum));
}

void ExpectClose(const Scan& s, const Result& got) {
  for (size_t seq = 0; seq < s.lengths.size(); ++seq) {
    for (int head = 0; head < s.shape.heads; ++head) ExpectHeadClose(s, got, seq, head);
  }
}

const Shape kShapes[] = {{12, 64, 64, 1}, {4, 8, 16, 2}, {2, 5, 128, 2}, {3, 7, 256, 1},
                         {2, 64, 32, 1},  {2, 3, 1, 1},  {4, 6, 33, 4},  {1, 1, 100, 1},
                         {2, 9, 200, 1},  {3, 2, 15, 3}};

TEST(SsdScanTest, MatchesDoublePrecision) {
  for (const Shape& shape : kShapes) {
    const Scan s(shape, {5, 0, 1, 70}, static_cast<uint32_t>(shape.state_dim));
    ExpectClose(s, s.Run({{{0, 0, 5}, {1, 0, 0}, {2, 0, 1}, {3, 0, 70}}}));
  }
}

TEST(SsdScanTest, ClampsSteps) {
  Scan s({2, 4, 16, 1}, {40}, 3);
  s.lo = 0.3f;
  s.hi = 0.9f;
  ExpectClose(s, s.Run(EachAlone(s.lengths)));
}

TEST(SsdScanTest, PortableBaselineIsRightToo) {
  const ForceTarget baseline(HWY_SCALAR);
  const Scan s({2, 5, 20, 1}, {9}, 3);
  ExpectClose(s, s.Run(EachAlone(s.lengths)));
}

TEST(SsdScanTest, AnySplitAndBatchGivesTheSameBits) {
  for (const Shape& shape : kShapes) {
    Random random(5);
    const Scan s(shape, {13, 3, 70}, 17);
    const Result alone = s.Run(EachAlone(s.lengths));
    for (const Plan& plan : OtherPlans(s.lengths, random)) ASSERT_TRUE(s.Run(plan) == alone);
  }
}

TEST(SsdScanTest, ThreadsAndInstructionSetsGiveTheSameBits) {
  for (const Shape& shape : kShapes) {
    const Scan s(shape, {13, 67}, 23);
    const Plan plan = {{{0, 0, 13}, {1, 0, 67}}};
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

TEST(SsdScanTest, NanStaysInItsSequenceAndOtherSlotsAreUntouched) {
  Scan s({2, 4, 40, 1}, {6, 6, 6}, 29);
  const Plan plan = {{{0, 0, 6}, {1, 0, 6}, {2, 0, 6}}};
  const Result clean = s.Run(plan);
  s.x.of[1][3] = s.b.of[1][2] = s.dt.of[1][1] = kPoison;
  const Result got = s.Run(plan);
  for (size_t seq : {size_t{0}, size_t{2}}) {
    EXPECT_TRUE(SameBits(got.y.of[seq], clean.y.of[seq]));
    const int64_t at = Packing::SlotOf(static_cast<int>(seq)) * s.slot_stride;
    EXPECT_TRUE(SameBits(got.state.data() + at, clean.state.data() + at,
                         static_cast<size_t>(s.slot_stride) * 4));
  }
  EXPECT_TRUE(std::isnan(got.y.of[1].back())) << "NaN must not turn into a number";
  for (int64_t slot : {0, 2, 4, 6}) {
    EXPECT_TRUE(SameBits(got.state.data() + slot * s.slot_stride,
                         s.state0.data() + slot * s.slot_stride,
                         static_cast<size_t>(s.slot_stride) * 4));
  }
}

TEST(SsdScanTest, RoundsOutputButNotState) {
  Scan s({2, 4, 16, 1}, {9}, 31);
  const Result exact = s.Run(EachAlone(s.lengths));
  s.round = true;
  const Result rounded = s.Run(EachAlone(s.lengths));
  EXPECT_TRUE(SameBits(exact.state, rounded.state));
  for (size_t i = 0; i < exact.y.of[0].size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &rounded.y.of[0][i], 4);
    EXPECT_EQ(bits & 0xFFFF, 0u);
    EXPECT_NEAR(rounded.y.of[0][i], exact.y.of[0][i], kBf16Unit * std::abs(exact.y.of[0][i]));
  }
}

TEST(SsdScanTest, CheckpointsAreTheStatesOfShorterLaunches) {
  Scan s({2, 5, 20, 1}, {13, 70, 0, 1}, 37);
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
    const int64_t slot = Packing::SlotOf(seq), cells = s.slot_stride - 7, t_width = s.t_stride - 1;
    EXPECT_TRUE(SameBits(got.kept.data() + place * s.slot_stride,
                         want.state.data() + slot * s.slot_stride, static_cast<size_t>(cells) * 4))
        << "row " << row;
    EXPECT_TRUE(SameBits(got.kept_t.data() + place * s.t_stride,
                         want.t_sum.data() + slot * s.t_stride, static_cast<size_t>(t_width) * 8))
        << "row " << row;
  }
}

TEST(SsdScanTest, RefusesNonsense) {
  Scan s({2, 4, 16, 1}, {3}, 1);
  Result out{Sequences::Poisoned(s.lengths, s.x.width), s.state0, s.t0, {}, {}};
  const auto refused = [&](auto change) {
    Scan bad = s;
    change(bad);
    return bad.Launch1({{0, 0, 3}}, {}, out).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_FALSE(refused([](Scan&) {}));
  EXPECT_TRUE(refused([](Scan& b) { b.shape.groups = 3; }));
  EXPECT_TRUE(refused([](Scan& b) { b.shape.state_dim = 257; }));
  EXPECT_TRUE(refused([](Scan& b) { b.shape.head_dim = 0; }));
  EXPECT_TRUE(refused([](Scan& b) { b.shape.heads = 64; }));
  EXPECT_TRUE(refused([](Scan& b) { b.lo = 2, b.hi = 1; }));
}

}  // namespace
}  // namespace anabranch::kernels
