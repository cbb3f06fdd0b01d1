// CUDA attention and rotary embedding against the CPU's, over launches that cut sequences apart.
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder
using Where = Memory::Where;

struct Shape {
  int32_t heads, kv_heads, head_dim, page_tokens;
};

struct Result {
  Sequences y;
  Floats keys, values;  // of all pages
};

struct Layer {
  Shape shape;
  DType acts, kv;
  std::vector<int64_t> lengths;
  int64_t pad = 0;
  Sequences q, k, v;
  float scale;
  int64_t page_stride, pages_each = 0;

  Layer(Shape s, DType acts, DType kv, std::vector<int64_t> n, int64_t pad, uint32_t seed)
      : shape(s), acts(acts), kv(kv), lengths(std::move(n)), pad(pad) {
    Random random(seed);
    q = Sequences::Make(lengths, s.heads * s.head_dim, random);
    k = Sequences::Make(lengths, s.kv_heads * s.head_dim, random);
    v = Sequences::Make(lengths, s.kv_heads * s.head_dim, random);
    for (Sequences* each : {&q, &k, &v}) {
      for (Floats& of : each->of) of = KeptAs(acts, of);
    }
    scale = 1.5f / std::sqrt(static_cast<float>(s.head_dim));
    page_stride = static_cast<int64_t>(s.page_tokens) * s.kv_heads * s.head_dim + pad;
    for (int64_t len : lengths) {
      pages_each = std::max(pages_each, (len + s.page_tokens - 1) / s.page_tokens);
    }
  }

  // What the launch of `plan` reads and writes, beside the pages.
  void Launch1(const LaunchPlan& plan, Where where, const Launch& launch, Memory& memory,
               PagedKv pages, Sequences& y) const {
    const Packing packing(plan);
    // Page j of sequence i is block j * sequences + i: neighbours belong to others.
    std::vector<int32_t> list, page_start{0};
    int64_t max_context = 0;
    for (const Segment& s : plan) {
      for (int64_t j = 0; j < pages_each; ++j) {
        list.push_back(static_cast<int32_t>(j * static_cast<int64_t>(lengths.size()) + s.seq));
      }
      page_start.push_back(static_cast<int32_t>(list.size()));
      max_context = std::max(max_context, s.to);
    }
    AttentionParams p;
    p.rows = memory.PutRows(packing), p.position = memory.Put(packing.position);
    p.heads = shape.heads, p.kv_heads = shape.kv_heads, p.head_dim = shape.head_dim;
    p.scale = scale, p.kv = pages, p.max_context = max_context;
    p.q_stride = q.width + pad, p.k_stride = k.width + pad, p.v_stride = v.width + pad;
    p.y_stride = q.width + 2 * pad;
    p.q = memory.PutActs(q.Gather(plan, p.q_stride), acts);
    p.k = memory.PutActs(k.Gather(plan, p.k_stride), acts);
    p.v = memory.PutActs(v.Gather(plan, p.v_stride), acts);
    p.kv.pages = memory.Put(list), p.kv.page_start = memory.Put(page_start);
    const auto size = static_cast<size_t>(packing.row_start.back() * p.y_stride);
    p.y = memory.PutActs(Floats(size, kPoison), acts);
    if (where == Where::kHost) {
      p.scratch = memory.Put(Floats(static_cast<size_t>(AttentionScratch(p, max_context)), 0));
    }
    const absl::Status s =
        where == Where::kHost ? Attention(p, launch) : cuda::Attention(p, launch);
    ASSERT_TRUE(s.ok()) << s;
    y.Scatter(plan, memory.GetActs(p.y, size), p.y_stride);
  }

  Result Run(const Plan& plan, Where where, const Launch& launch) const {
    Memory memory(where);
    const auto size = lengths.size() * static_cast<size_t>(pages_each * page_stride);
    PagedKv pages;
    pages.dtype = kv, pages.page_stride = page_stride, pages.page_tokens = shape.page_tokens;
    // bfloat16 pages are that on the CPU, too.
    const std::vector<uint16_t> narrow(size, 0x7FC0);
    const Floats wide(size, kPoison);
    const auto poisoned = [&]() -> void* {
      return kv == DType::kFloat32 ? static_cast<void*>(memory.Put(wide)) : memory.Put(narrow);
    };
    pages.keys = poisoned(), pages.values = poisoned();
    Result out{Sequences::Poisoned(lengths, q.width), {}, {}};
    for (const LaunchPlan& one : plan) Launch1(one, where, launch, memory, pages, out.y);
    const auto read = [&](void* from) {
      if (kv == DType::kFloat32) return memory.Get(static_cast<float*>(from), size);
      Floats numbers;
      for (uint16_t v : memory.Get(static_cast<uint16_t*>(from), size)) {
        numbers.push_back(FromBf16(v));
      }
      return numbers;
    };
    out.keys = read(pages.keys), out.values = read(pages.values);
    return out;
  }

  double LargestNorm(const Sequences& of) const {
    double most = 0;
    for (const Floats& numbers : of.of) {
      for (size_t i = 0; i < numbers.size(); i += static_cast<size_t>(shape.head_dim)) {
        double square = 0;
        for (int j = 0; j < shape.head_dim; ++j) square += double{numbers[i + j]} * numbers[i + j];
        most = std::max(most, std::sqrt(square));
      }
    }
    return most;
  }
  // Scores are off by (head_dim + 4) units of |q| |k| on either side; the softmax makes twice that
  // of it; sums over the context add a unit a key, in bfloat16 probabilities are rounded, too.
  double Relative() const {
    double longest = 0;
    for (int64_t n : lengths) longest = std::max(longest, static_cast<double>(n));
    const double score = (shape.head_dim + 4) * kUnit * LargestNorm(q) * LargestNorm(k) * scale;
    const double rounding = acts == DType::kFloat32 ? 0 : 2 * UnitOf(acts);
    return 4 * score + (2 * longest + 64) * kUnit + rounding;
  }
};

void ExpectSame(const Layer& layer, const Plan& plan, const Launch& cuda) {
  const Shape& s = layer.shape;
  SCOPED_TRACE(::testing::Message()
               << s.heads << "/" << s.kv_heads << " heads of " << s.head_dim << ", pages of "
               << s.page_tokens << ", acts " << static_cast<int>(layer.acts) << ", kv "
               << static_cast<int>(layer.kv) << ", pad " << layer.pad);
  const Result want = layer.Run(plan, Where::kHost, {}),
               got = layer.Run(plan, Where::kDevice, cuda);
  EXPECT_TRUE(SameBits(got.keys, want.keys));
  EXPECT_TRUE(SameBits(got.values, want.values));
  // With the values' sizes the CPU gives what the weighted sums are made of.
  Layer sizes = layer;
  for (Floats& of : sizes.v.of) {
    for (float& v : of) v = std::abs(v);
  }
  const Result size = sizes.Run(plan, Where::kHost, {});
  const double relative = layer.Relative();
  for (size_t seq = 0; seq < layer.lengths.size(); ++seq) {
    std::vector<double> tolerance;
    for (float v : size.y.of[seq]) tolerance.push_back(relative * v + 1e-30);
    EXPECT_TRUE(AllNear(got.y.of[seq], want.y.of[seq], tolerance)) << "sequence " << seq;
  }
}

class AttentionCudaTest : public CudaKernelTest {};

class AttentionShapes : public AttentionCudaTest, public ::testing::WithParamInterface<Shape> {};

TEST_P(AttentionShapes, MatchesTheCpuInEveryDtype) {
  uint32_t seed = static_cast<uint32_t>(GetParam().head_dim);
  for (DType acts : kBothDTypes) {
    for (DType kv : kBothDTypes) {
      for (int64_t pad : {0, 1, 8}) {
        const Layer layer(GetParam(), acts, kv, {70, 1, 0, 131}, pad, ++seed);
        ExpectSame(layer, {{{0, 0, 70}, {1, 0, 1}, {2, 0, 0}, {3, 0, 131}}}, launch_);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionShapes,
                         ::testing::Values(Shape{4, 4, 64, 256}, Shape{8, 2, 128, 256},
                                           Shape{6, 2, 80, 64}, Shape{4, 1, 256, 256},
                                           Shape{16, 1, 32, 16}, Shape{3, 3, 7, 5},
                                           Shape{10, 2, 33, 256}));

TEST_F(AttentionCudaTest, MatchesTheCpuHoweverSequencesAreCut) {
  for (DType dtype : kBothDTypes) {
    for (const Shape& shape : std::vector<Shape>{{8, 2, 64, 256}, {4, 2, 24, 8}}) {
      Random random(9);
      const Layer layer(shape, dtype, dtype, {13, 9, 1}, 8, 77);
      for (const Plan& plan : OtherPlans(layer.lengths, random)) ExpectSame(layer, plan, launch_);
    }
  }
}

// Contexts of one, several and very many chunks of decode; a sequence without a row beside them.
// Small heads: the CPU reads the long context, too.
TEST_F(AttentionCudaTest, DecodesFromLongContexts) {
  if (SmallShapes()) GTEST_SKIP() << "16,500 tokens";
  for (DType dtype : kBothDTypes) {
    const Layer layer({2, 1, 16, 256}, dtype, dtype, {256, 257, 1000, 16500}, 0, 5);
    Plan plan = {{{0, 0, 254}, {1, 0, 255}, {2, 0, 998}, {3, 0, 16498}}};
    plan.push_back({{0, 254, 255}, {1, 255, 256}, {2, 998, 999}, {3, 16498, 16499}});
    plan.push_back({{3, 16499, 16500}, {0, 255, 255}, {2, 999, 1000}, {1, 256, 257}});
    plan.push_back({{0, 255, 256}});
    ExpectSame(layer, plan, launch_);
  }
}

TEST_F(AttentionCudaTest, DecodesWithGroupsOfAnySize) {
  const int64_t last = SmallShapes() ? 140 : 599;
  for (DType dtype : kBothDTypes) {
    for (const Shape& shape : std::vector<Shape>{{8, 2, 128, 256},
                                                 {16, 2, 128, 256},
                                                 {12, 1, 64, 256},
                                                 {3, 3, 256, 256},
                                                 {5, 1, 9, 7}}) {
      const Layer layer(shape, dtype, dtype, {last + 1, 64}, 8, 15);
      ExpectSame(layer, {{{0, 0, last}, {1, 0, 63}}, {{1, 63, 64}, {0, last, last + 1}}}, launch_);
    }
  }
}

TEST_F(AttentionCudaTest, ASequenceDoesNotDependOnItsNeighbours) {
  for (DType dtype : kBothDTypes) {
    const Layer layer({8, 2, 64, 256}, dtype, dtype, {300, 40, 90}, 0, 6);
    const Plan together = {{{0, 0, 299}, {1, 0, 39}, {2, 0, 89}},
                           {{0, 299, 300}, {1, 39, 40}, {2, 89, 90}}};
    const Result all = layer.Run(together, Where::kDevice, launch_);
    for (int seq = 0; seq < 3; ++seq) {
      const int64_t n = layer.lengths[static_cast<size_t>(seq)];
      const Result alone =
          layer.Run({{{seq, 0, n - 1}}, {{seq, n - 1, n}}}, Where::kDevice, launch_);
      EXPECT_TRUE(
          SameBits(alone.y.of[static_cast<size_t>(seq)], all.y.of[static_cast<size_t>(seq)]));
    }
  }
}

TEST_F(AttentionCudaTest, NanStaysInItsSequenceAndFuture) {
  for (DType dtype : kBothDTypes) {
    Layer layer({4, 2, 64, 256}, dtype, dtype, {9, 9, 9}, 0, 29);
    const Plan plan = {{{0, 0, 9}, {1, 0, 9}, {2, 0, 9}}};
    const Result clean = layer.Run(plan, Where::kDevice, launch_);
    layer.k.of[1][static_cast<size_t>(4 * layer.k.width)] = kPoison;
    layer.v.of[1][static_cast<size_t>(5 * layer.v.width)] = kPoison;
    const Result got = layer.Run(plan, Where::kDevice, launch_);
    EXPECT_TRUE(SameBits(got.y.of[0], clean.y.of[0]));
    EXPECT_TRUE(SameBits(got.y.of[2], clean.y.of[2]));
    if (dtype == DType::kFloat32) {  // on tensor cores it shows in neighbouring rows, too
      const size_t before = static_cast<size_t>(4 * layer.q.width) * 4;
      EXPECT_TRUE(SameBits(got.y.of[1].data(), clean.y.of[1].data(), before));
    }
    EXPECT_TRUE(std::isnan(got.y.of[1][static_cast<size_t>(6 * layer.q.width)]));
  }
}

class RopeCudaTest : public CudaKernelTest {};

TEST_F(RopeCudaTest, TurnsAsTheCpuAtAnyPosition) {
  for (const auto& [dim, rotary] : std::vector<std::pair<int, int>>{
           {64, 64}, {64, 16}, {10, 6}, {2, 2}, {33, 32}, {5, 0}, {256, 256}}) {
    for (int64_t offset : {0, 1000, 130000}) {
      for (DType dtype : kBothDTypes) {
        Random random(3);
        const int64_t stride = 3 * dim + 5;
        const LaunchPlan plan = {{0, 0, 4}, {1, 0, 0}, {2, 0, 1}, {3, 0, 17}};
        const Packing packing(plan);
        const Floats x = KeptAs(dtype, random.Normals(packing.row_start.back() * stride));
        std::vector<int64_t> position;
        for (int64_t at : packing.position) position.push_back(at + offset);
        const auto run = [&](Where where, const Launch& launch) {
          Memory memory(where);
          RopeParams p;
          p.rows = memory.PutRows(packing), p.position = memory.Put(position);
          p.heads = 3, p.head_dim = dim, p.rotary_dim = rotary, p.x_stride = stride;
          p.theta = offset == 1000 ? 1e6 : 10000, p.x = memory.PutActs(x, dtype);
          const absl::Status s = where == Where::kHost ? Rope(p, launch) : cuda::Rope(p, launch);
          EXPECT_TRUE(s.ok()) << s;
          return memory.GetActs(p.x, x.size());
        };
        const Floats want = run(Where::kHost, {}), got = run(Where::kDevice, launch_);
        // Angles are the same bits; sines and cosines are right to 2 units on either side.
        double most = 0;
        for (float v : x) most = std::max<double>(most, std::abs(v));
        std::vector<double> tolerance;
        for (float v : want) {
          tolerance.push_back(16 * kUnit * most + UnitOf(dtype) * std::abs(v) + 1e-30);
        }
        EXPECT_TRUE(AllNear(got, want, tolerance)) << dim << "/" << rotary << " at " << offset;
      }
    }
  }
}

}  // namespace
}  // namespace anabranch::kernels
