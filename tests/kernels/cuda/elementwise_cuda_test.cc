// The row-wise CUDA kernels against the CPU's.
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels {
namespace {

using namespace testing;  // NOLINT: the helpers of this folder
using Where = Memory::Where;

// A [rows, stride] array of activations; the gaps of outputs must stay as they were.
struct Shape {
  int64_t rows, width, pad;
  int64_t stride() const { return width + pad; }
  size_t size() const { return static_cast<size_t>(rows * stride()); }
};

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (int64_t rows : {0, 1, 5, 257}) {
    for (int64_t width : {1, 7, 8, 200, 2560}) {
      for (int64_t pad : {0, 1, 8}) shapes.push_back({rows, width, pad});
    }
  }
  return shapes;
}

// `units` roundings of float32 and one of the output's dtype, of what was added up.
void ExpectNear(const Floats& got, const Floats& want, const Floats& magnitude, double units,
                DType dtype) {
  std::vector<double> tolerance;
  for (float v : magnitude) {
    tolerance.push_back((units * kUnit + UnitOf(dtype)) * std::abs(v) + 1e-37);
  }
  EXPECT_TRUE(AllNear(got, want, tolerance));
}

class ElementwiseCudaTest : public CudaKernelTest {
 protected:
  // Runs `body(where, launch, memory)`, which returns the output, on both sides.
  template <class Body>
  void Compare(const Body& body, double units, DType dtype) {
    Memory host(Where::kHost), device(Where::kDevice);
    const Floats want = body(Where::kHost, Launch{}, host);
    const Floats got = body(Where::kDevice, launch_, device);
    ExpectNear(got, want, want, units, dtype);
  }
};

TEST_F(ElementwiseCudaTest, EmbedsWithEveryDtypeAndShape) {
  for (const Shape& shape : Shapes()) {
    for (DType table : kBothDTypes) {
      for (DType out : kBothDTypes) {
        Random random(1);
        const int64_t vocab = 37;
        const Floats numbers = KeptAs(table, random.Normals(vocab * shape.width));
        std::vector<int32_t> ids;
        for (int64_t i = 0; i < shape.rows; ++i) {
          ids.push_back(static_cast<int32_t>(random.Int(0, vocab - 1)));
        }
        const auto run = [&](Where where, const Launch& launch, Memory& memory) {
          EmbedParams p;
          p.rows = shape.rows, p.width = shape.width, p.scale = 1.5f;
          p.ids = memory.Put(ids);
          // The CPU's table stays bfloat16, too.
          p.dtype = table;
          if (table == DType::kFloat32) {
            p.table = memory.Put(numbers);
          } else {
            std::vector<uint16_t> bits;
            for (float v : numbers) bits.push_back(ToBf16(v));
            p.table = memory.Put(bits);
          }
          const auto size = static_cast<size_t>(shape.rows * shape.width);
          p.y = memory.PutActs(Floats(size, kPoison), out);
          EXPECT_TRUE((where == Where::kHost ? Embed(p, launch) : cuda::Embed(p, launch)).ok());
          return memory.GetActs(p.y, size);
        };
        Compare(run, 1, out);
      }
    }
  }
}

// The outputs without what lies between the rows.
Floats Rows(const Floats& all, const Shape& shape) {
  Floats rows;
  for (int64_t r = 0; r < shape.rows; ++r) {
    const auto row = all.begin() + r * shape.stride();
    rows.insert(rows.end(), row, row + shape.width);
  }
  return rows;
}

TEST_F(ElementwiseCudaTest, ActivatesAndMultipliesAlsoInPlace) {
  for (const Shape& shape : Shapes()) {
    for (Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kRelu2}) {
      for (DType dtype : kBothDTypes) {
        for (int variant = 0; variant < 3; ++variant) {  // plain, gated, gated in place
          Random random(2);
          const Floats gate = KeptAs(dtype, random.Normals(shape.rows * shape.stride(), 3));
          const Floats up = KeptAs(dtype, random.Normals(shape.rows * shape.stride()));
          const auto run = [&](Where where, const Launch& launch, Memory& memory) {
            GatedMulParams p;
            p.rows = shape.rows, p.width = shape.width, p.activation = activation;
            const Acts in = memory.PutActs(gate, dtype);
            p.gate = in;
            if (variant > 0) p.up = memory.PutActs(up, dtype);
            p.in_stride = p.y_stride = shape.stride();
            p.y = variant == 2 ? in : memory.PutActs(Floats(shape.size(), kPoison), dtype);
            const absl::Status s =
                where == Where::kHost ? GatedMul(p, launch) : cuda::GatedMul(p, launch);
            EXPECT_TRUE(s.ok()) << s;
            return Rows(memory.GetActs(p.y, shape.size()), shape);
          };
          // The CPU's Gelu is right to 1e-8 of x; far out both sides are tiny.
          Compare(run, 64, dtype);
        }
      }
    }
  }
}

TEST_F(ElementwiseCudaTest, AddsScaled) {
  for (const Shape& shape : Shapes()) {
    for (DType x_dtype : kBothDTypes) {
      for (DType y_dtype : kBothDTypes) {
        Random random(3);
        const Floats x = KeptAs(x_dtype, random.Normals(shape.rows * shape.stride()));
        const Floats y = KeptAs(y_dtype, random.Normals(shape.rows * shape.stride()));
        const auto run = [&](Where where, const Launch& launch, Memory& memory) {
          AddScaledParams p;
          p.rows = shape.rows, p.width = shape.width, p.scale = 0.3f;
          p.x = memory.PutActs(x, x_dtype), p.y = memory.PutActs(y, y_dtype);
          p.x_stride = p.y_stride = shape.stride();
          const absl::Status s =
              where == Where::kHost ? AddScaled(p, launch) : cuda::AddScaled(p, launch);
          EXPECT_TRUE(s.ok()) << s;
          return Rows(memory.GetActs(p.x, shape.size()), shape);
        };
        Compare(run, 0, x_dtype);  // the same roundings in float32
      }
    }
  }
}

TEST_F(ElementwiseCudaTest, ScalesByColumns) {
  for (const Shape& shape : Shapes()) {
    for (DType dtype : kBothDTypes) {
      for (bool columns : {false, true}) {
        Random random(4);
        const Floats x = KeptAs(dtype, random.Normals(shape.rows * shape.stride()));
        const Floats factors = random.Normals(shape.width);
        const auto run = [&](Where where, const Launch& launch, Memory& memory) {
          ScaleParams p;
          p.rows = shape.rows, p.width = shape.width, p.scale = 0.7f;
          p.x = memory.PutActs(x, dtype);
          p.y = memory.PutActs(Floats(shape.size(), kPoison), dtype);
          p.x_stride = p.y_stride = shape.stride();
          if (columns) p.columns = memory.Put(factors);
          const absl::Status s = where == Where::kHost ? Scale(p, launch) : cuda::Scale(p, launch);
          EXPECT_TRUE(s.ok()) << s;
          return Rows(memory.GetActs(p.y, shape.size()), shape);
        };
        Compare(run, 2, dtype);
      }
    }
  }
}

TEST_F(ElementwiseCudaTest, CopiesRowsFromAnywhereAndChangesTheDtype) {
  for (const Shape& shape : Shapes()) {
    for (DType from : kBothDTypes) {
      for (DType to : kBothDTypes) {
        for (bool gather : {false, true}) {
          Random random(5);
          const Floats x = KeptAs(from, random.Normals(shape.rows * shape.stride()));
          std::vector<int32_t> row;
          for (int64_t i = 0; i < shape.rows; ++i) {
            row.push_back(static_cast<int32_t>(random.Int(0, shape.rows - 1)));
          }
          const auto run = [&](Where where, const Launch& launch, Memory& memory) {
            CopyRowsParams p;
            p.rows = shape.rows, p.width = shape.width;
            p.x = memory.PutActs(x, from);
            p.y = memory.PutActs(Floats(shape.size(), kPoison), to);
            p.x_stride = p.y_stride = shape.stride();
            if (gather) p.row = memory.Put(row);
            const absl::Status s =
                where == Where::kHost ? CopyRows(p, launch) : cuda::CopyRows(p, launch);
            EXPECT_TRUE(s.ok()) << s;
            return Rows(memory.GetActs(p.y, shape.size()), shape);
          };
          Compare(run, 0, to);
        }
      }
    }
  }
}

// Rows 3 * 10^9 elements apart. Needs 12 GB, which any of the devices in question has.
TEST_F(ElementwiseCudaTest, StridesPastTwoToThe31) {
  const int64_t stride = 3'000'000'000, width = 16;
  Memory memory(Where::kDevice);
  size_t left = 0, all = 0;
  ASSERT_EQ(cudaMemGetInfo(&left, &all), cudaSuccess);
  if (left < (size_t{14} << 30)) GTEST_SKIP() << "less than 14 GB of device memory are free";
  auto* far = static_cast<float*>(memory.Allocate(static_cast<size_t>(stride + width) * 4));
  Random random(6);
  const Floats x = random.Normals(2 * width);
  CopyRowsParams p;
  p.rows = 2, p.width = width;
  p.x = memory.PutActs(x, DType::kFloat32), p.x_stride = width;
  p.y = far, p.y_stride = stride;
  ASSERT_TRUE(cuda::CopyRows(p, launch_).ok());
  EXPECT_EQ(memory.Get(far + stride, width), Floats(x.begin() + width, x.end()));
  p.x = far, p.x_stride = stride, p.y_stride = width;
  p.y = memory.PutActs(Floats(2 * width, kPoison), DType::kFloat32);
  ASSERT_TRUE(cuda::CopyRows(p, launch_).ok());
  EXPECT_EQ(memory.GetActs(p.y, 2 * width), x);
}

TEST_F(ElementwiseCudaTest, SumsDirectionsOfEverySequence) {
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{1}, {0, 1, 1}, {5, 0, 300}, {256, 257, 1000}}) {
    for (int64_t width : {1, 33, 384}) {
      for (DType dtype : kBothDTypes) {
        Random random(7);
        LaunchPlan plan;
        for (size_t i = 0; i < lengths.size(); ++i)
          plan.push_back({static_cast<int>(i), 0, lengths[i]});
        const Packing packing(plan);
        const int64_t rows = packing.row_start.back();
        const auto seqs = static_cast<int64_t>(lengths.size());
        const Floats x = KeptAs(dtype, random.Normals(rows * width));
        const Floats sums = random.Normals(seqs * width);
        const std::vector<int32_t> checks = {0, static_cast<int32_t>(rows / 2),
                                             static_cast<int32_t>(rows - 1)};
        const auto run = [&](Where where, const Launch& launch) {
          Memory memory(where);
          SumDirectionsParams p;
          p.rows = memory.PutRows(packing), p.width = width;
          p.x = memory.PutActs(x, dtype), p.sums = memory.Put(sums);
          p.checkpoints = {static_cast<int32_t>(checks.size()), memory.Put(checks), nullptr};
          p.checkpoint_sums = memory.Put(Floats(checks.size() * width, -77.0f));
          const absl::Status s =
              where == Where::kHost ? SumDirections(p, launch) : cuda::SumDirections(p, launch);
          EXPECT_TRUE(s.ok()) << s;
          Floats result = memory.Get(p.sums, sums.size());
          const Floats kept = memory.Get(p.checkpoint_sums, checks.size() * width);
          result.insert(result.end(), kept.begin(), kept.end());
          return result;
        };
        const Floats want = run(Where::kHost, {}), got = run(Where::kDevice, launch_);
        // Up to 1,000 numbers of at most 1 in another order, each off by the rounding of its norm.
        const double most = static_cast<double>(rows + 2);
        const double each = (most + static_cast<double>(width)) * kUnit;
        EXPECT_TRUE(AllNear(got, want, std::vector<double>(want.size(), most * each)));
        EXPECT_TRUE(SameBits(got, run(Where::kDevice, launch_)));
      }
    }
  }
}

TEST_F(ElementwiseCudaTest, RefusesWhatItCannotDo) {
  CopyRowsParams p;
  p.rows = p.width = 1;
  EXPECT_EQ(cuda::CopyRows(p, launch_).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cuda::CopyRows(p, Launch{}).code(), absl::StatusCode::kInvalidArgument);
  GatedMulParams rounded;
  rounded.round_to_bf16 = true;
  EXPECT_EQ(cuda::GatedMul(rounded, launch_).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace anabranch::kernels
