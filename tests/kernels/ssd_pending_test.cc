// Steps that defer writing S, on the CPU: what they give is what plain steps give.
#include "kernels/ssd_scan.h"
#include "tests/kernels/kernel_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder

struct Shape {
  int32_t heads, head_dim, state_dim, groups;
};

// Slots of S and T, and the tokens that are beside S.
struct Slots {
  Floats state;
  std::vector<uint16_t> half;  // the state, where it is kept in bfloat16
  std::vector<double> t;
  Floats x, b, dt;
  std::vector<int32_t> pending;  // by sequence
};

struct Deferring {
  Shape shape;
  int32_t room;
  bool half = false;
  Floats a, d, dt_bias;
  int64_t cells, x_width, b_width;

  Deferring(Shape s, int32_t tokens, Random& random) : shape(s), room(tokens) {
    for (int i = 0; i < s.heads; ++i) a.push_back(-random.Uniform(0.01f, 4));
    d = random.Normals(s.heads);
    dt_bias = random.Normals(s.heads);
    cells = int64_t{s.heads} * s.head_dim * s.state_dim;
    x_width = int64_t{s.heads} * s.head_dim;
    b_width = int64_t{s.groups} * s.state_dim;
  }

  Slots MakeSlots(int seqs, Random& random) const {
    const int64_t slots = 2 * seqs + 1;
    Slots out;
    out.state = random.Normals(slots * cells);
    for (float& v : out.state) {
      uint32_t bits;
      std::memcpy(&bits, &v, 4);
      bits &= 0xffff0000u;
      std::memcpy(&v, &bits, 4);
      out.half.push_back(static_cast<uint16_t>(bits >> 16));
    }
    out.t.assign(static_cast<size_t>(slots * shape.heads), 1.5);
    // What was never written must not be read.
    out.x.assign(static_cast<size_t>(slots * room * x_width), kPoison);
    out.b.assign(static_cast<size_t>(slots * room * b_width), kPoison);
    out.dt.assign(static_cast<size_t>(slots * room * shape.heads), kPoison);
    out.pending.assign(static_cast<size_t>(seqs), 0);
    return out;
  }

  SsdScanParams Params(Slots& slots, const Packing& packing) const {
    SsdScanParams p;
    p.rows = packing.rows();
    p.heads = shape.heads, p.head_dim = shape.head_dim;
    p.state_dim = shape.state_dim, p.groups = shape.groups;
    p.a = a.data(), p.d = d.data(), p.dt_bias = dt_bias.data();
    p.dt_hi = std::numeric_limits<float>::infinity();
    p.state = half ? Acts(slots.half.data(), DType::kBFloat16) : Acts(slots.state.data());
    p.state_slot_stride = cells;
    p.positions = packing.position.data(), p.rounding_seed = 5;
    p.t_sum = slots.t.data(), p.t_slot_stride = shape.heads;
    p.pending.room = room;
    p.pending.x = slots.x.data(), p.pending.x_slot_stride = room * x_width;
    p.pending.b = slots.b.data(), p.pending.b_slot_stride = room * b_width;
    p.pending.dt = slots.dt.data(), p.pending.dt_slot_stride = room * shape.heads;
    return p;
  }

  // The rows of the plan; sequences whose entry of `after` is not -1 defer.
  Floats Step(Slots& slots, const LaunchPlan& plan, const Sequences& x, const Sequences& b,
              const Sequences& c, const Sequences& dt, const std::vector<int32_t>& after) const {
    const Packing packing(plan);
    const Floats xr = x.Gather(plan, x_width + 3), br = b.Gather(plan, b_width + 1);
    const Floats cr = c.Gather(plan, b_width + 2), dr = dt.Gather(plan, shape.heads + 5);
    Floats y(static_cast<size_t>(packing.row_start.back() * x_width), kPoison);
    SsdScanParams p = Params(slots, packing);
    p.x = xr.data(), p.b = br.data(), p.c = cr.data(), p.dt = dr.data();
    p.x_stride = x_width + 3, p.b_stride = b_width + 1, p.c_stride = b_width + 2;
    p.dt_stride = shape.heads + 5;
    p.y = y.data(), p.y_stride = x_width;
    std::vector<int32_t> before, left;
    for (size_t i = 0; i < plan.size(); ++i) {
      int32_t& pending = slots.pending[static_cast<size_t>(plan[i].seq)];
      const bool defers = after[i] >= 0;
      before.push_back(defers ? pending : -1);
      left.push_back(defers ? after[i] : 0);
      p.pending.deferring += defers;
      pending = left.back();
    }
    p.pending.before = before.data(), p.pending.after = left.data();
    const absl::Status status = SsdScan(p, {});
    EXPECT_TRUE(status.ok()) << status;
    return y;
  }

  void Fold(Slots& slots, int seqs, int64_t position) const {
    LaunchPlan plan;
    for (int seq = 0; seq < seqs; ++seq) plan.push_back({seq, position, position});
    const Packing packing(plan);
    SsdScanParams p = Params(slots, packing);
    const std::vector<int32_t> none(plan.size(), 0), before = slots.pending;
    p.pending.deferring = seqs;
    p.pending.before = before.data(), p.pending.after = none.data();
    const absl::Status status = SsdFold(p, {});
    EXPECT_TRUE(status.ok()) << status;
    slots.pending = none;
  }

  Floats State(const Slots& slots) const {
    if (!half) return slots.state;
    Floats out;
    for (uint16_t v : slots.half) {
      const uint32_t bits = uint32_t{v} << 16;
      float value;
      std::memcpy(&value, &bits, 4);
      out.push_back(value);
    }
    return out;
  }
};

// Relative to the largest value there is: sums of about 100 terms of that size.
void ExpectNear(const Floats& got, const Floats& want, double unit) {
  ASSERT_EQ(got.size(), want.size());
  double largest = 0;
  for (float v : want) largest = std::max(largest, std::abs(static_cast<double>(v)));
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], unit * largest) << i;
}

// Three sequences with different counts of pending tokens; each is folded at points of its own,
// among them some where nothing or everything is pending. Then all are.
void ExpectPlain(const Shape& shape, int32_t room, bool half, uint32_t seed) {
  constexpr int kSeqs = 3;
  constexpr int64_t kTokens = 40;
  Random random(seed);
  Deferring run(shape, room, random);
  const std::vector<int64_t> lengths(kSeqs, kTokens);
  const Sequences x = Sequences::Make(lengths, run.x_width, random);
  const Sequences b = Sequences::Make(lengths, run.b_width, random);
  const Sequences c = Sequences::Make(lengths, run.b_width, random);
  const Sequences dt = Sequences::Make(lengths, shape.heads, random, 2);
  const Slots start = run.MakeSlots(kSeqs, random);
  Slots plain = start, deferred = start;
  run.half = half;
  Deferring exact = run;
  exact.half = false;  // what both are near to
  for (int64_t t = 0; t < kTokens; ++t) {
    const LaunchPlan plan = {{2, t, t + 1}, {0, t, t + 1}, {1, t, t + 1}};
    std::vector<int32_t> after;
    for (const Segment& segment : plan) {
      const int32_t pending = deferred.pending[static_cast<size_t>(segment.seq)];
      const bool folds = pending == room || random.Int(0, 9) == 0;
      after.push_back(folds ? 0 : pending + 1);
    }
    // Now and then a sequence with nothing pending takes a plain step between the others.
    if (deferred.pending[1] == 0 && random.Int(0, 3) == 0) after[2] = -1;
    const Floats want = exact.Step(plain, plan, x, b, c, dt, {-1, -1, -1});
    const Floats got = run.Step(deferred, plan, x, b, c, dt, after);
    ExpectNear(got, want, half ? 0.02 : 4e-6);
  }
  run.Fold(deferred, kSeqs, kTokens);
  ExpectNear(run.State(deferred), plain.state, half ? 0.02 : 4e-6);
  for (size_t i = 0; i < plain.t.size(); ++i) EXPECT_NEAR(deferred.t[i], plain.t[i], 1e-4);
}

TEST(SsdPendingTest, DeferredStepsGiveWhatPlainStepsGive) {
  Random random(1);
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const auto groups = static_cast<int32_t>(random.Int(1, 3));
    const Shape shape{groups * static_cast<int32_t>(random.Int(1, 3)),
                      static_cast<int32_t>(random.Int(1, 20)),
                      static_cast<int32_t>(random.Int(1, 140)), groups};
    const auto room = static_cast<int32_t>(random.Int(1, SsdPending::kMost));
    SCOPED_TRACE(::testing::Message() << "seed " << seed << ", room " << room);
    ExpectPlain(shape, room, seed % 2 == 1, seed);
  }
}

TEST(SsdPendingTest, FoldingAtOnceAndWithTheLastTokenIsTheSame) {
  Random random(2);
  const Deferring run({4, 8, 32, 2}, 7, random);
  const std::vector<int64_t> lengths = {6};
  const Sequences x = Sequences::Make(lengths, run.x_width, random);
  const Sequences b = Sequences::Make(lengths, run.b_width, random);
  const Sequences c = Sequences::Make(lengths, run.b_width, random);
  const Sequences dt = Sequences::Make(lengths, 4, random);
  Slots with = run.MakeSlots(1, random);
  Slots apart = with;
  for (int64_t t = 0; t < 6; ++t) {
    const auto count = static_cast<int32_t>(t + 1);
    const Floats one = run.Step(with, {{0, t, t + 1}}, x, b, c, dt, {t == 5 ? 0 : count});
    EXPECT_TRUE(SameBits(one, run.Step(apart, {{0, t, t + 1}}, x, b, c, dt, {count})));
  }
  run.Fold(apart, 1, 6);
  EXPECT_TRUE(SameBits(with.state, apart.state));
  const Floats folded = apart.state;
  run.Fold(apart, 1, 6);
  EXPECT_TRUE(SameBits(apart.state, folded)) << "nothing is pending any more";
}

TEST(SsdPendingTest, RefusesCountsOutOfRange) {
  Random random(3);
  const Deferring run({2, 4, 16, 1}, 3, random);
  Slots slots = run.MakeSlots(1, random);
  const Packing packing({{0, 0, 1}});
  const Floats row(64, 1.0f);
  Floats y(8);
  const auto step = [&](int32_t before, int32_t after, int32_t deferring) {
    SsdScanParams p = run.Params(slots, packing);
    p.x = p.b = p.c = p.dt = row.data();
    p.x_stride = 8, p.b_stride = p.c_stride = 16, p.dt_stride = 2;
    p.y = y.data(), p.y_stride = 8;
    p.pending.before = &before, p.pending.after = &after, p.pending.deferring = deferring;
    return SsdScan(p, {});
  };
  EXPECT_TRUE(step(0, 1, 1).ok());
  EXPECT_TRUE(step(1, 0, 1).ok());
  EXPECT_TRUE(step(-1, 0, 0).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(step(1, 3, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(step(3, 4, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(step(4, 0, 1)));
  EXPECT_TRUE(absl::IsInvalidArgument(step(0, 1, 2)));
}

}  // namespace
}  // namespace anabranch::kernels
