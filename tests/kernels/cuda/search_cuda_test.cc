// The search scan against a naive one.
#include <algorithm>

#include "kernels/cuda/search.h"
#include "tests/kernels/cuda/cuda_testing.h"

namespace anabranch::kernels::cuda {
namespace {

using namespace kernels::testing;  // NOLINT: the helpers of this folder

// Numbers that float16 has, and the bits of it. Of -8 .. 8 in steps of 1/64: sums are exact.
float Coarse(Random& random) { return static_cast<float>(random.Int(-512, 512)) / 64; }
uint16_t Half(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if ((bits & 0x7FFFFFFFu) == 0) return static_cast<uint16_t>(bits >> 16);
  return static_cast<uint16_t>((bits >> 16 & 0x8000u) |
                               (((bits >> 13 & 0x3FFFFu) - (112u << 10)) & 0x7FFFu));
}

class SearchCudaTest : public CudaKernelTest {};

TEST_F(SearchCudaTest, FindsTheBestInOrder) {
  for (EmbeddingDType dtype :
       {EmbeddingDType::kFloat32, EmbeddingDType::kBFloat16, EmbeddingDType::kFloat16}) {
    for (int64_t count : {0, 1, 5, 4096, 4097, 70'000}) {
      if (SmallShapes() && count > 4097) continue;
      for (int32_t num_queries : {1, 6}) {
        for (int32_t limit : {1, 10, 1024}) {
          const int64_t width = 40, stride = 48;
          Random random(static_cast<uint32_t>(count + limit));
          Memory memory(Memory::Where::kDevice);
          Floats embeddings(static_cast<size_t>(count * stride)), queries, mean;
          for (float& v : embeddings) {
            v = Coarse(random);
            if (dtype == EmbeddingDType::kBFloat16) v = FromBf16(ToBf16(v));
          }
          for (int64_t i = 0; i < num_queries * width; ++i) queries.push_back(Coarse(random));
          for (int64_t i = 0; i < width; ++i) mean.push_back(Coarse(random));
          std::vector<uint32_t> wanted;
          for (int64_t i = 0; i < count / 32 + 1; ++i) {
            wanted.push_back(static_cast<uint32_t>(random.Int(0, 0xFFFFFFFF)));
          }
          SearchParams p;
          p.queries = memory.Put(queries), p.num_queries = num_queries;
          p.dtype = dtype, p.count = count, p.width = width, p.row_stride = stride;
          if (dtype == EmbeddingDType::kFloat32) {
            p.embeddings = memory.Put(embeddings);
          } else {
            std::vector<uint16_t> bits;
            for (float v : embeddings) {
              bits.push_back(dtype == EmbeddingDType::kFloat16 ? Half(v) : ToBf16(v));
            }
            p.embeddings = memory.Put(bits);
          }
          p.mean = memory.Put(mean), p.wanted = memory.Put(wanted), p.limit = limit;
          const auto size = static_cast<size_t>(num_queries) * static_cast<size_t>(limit);
          p.scores = memory.Put(Floats(size, kPoison));
          p.index = memory.Put(std::vector<int64_t>(size, -9));
          const absl::Status s = Search(p, launch_);
          ASSERT_TRUE(s.ok()) << s;
          const Floats scores = memory.Get(p.scores, size);
          const std::vector<int64_t> index = memory.Get(p.index, size);
          for (int32_t q = 0; q < num_queries; ++q) {
            std::vector<std::pair<float, int64_t>> want;
            for (int64_t i = 0; i < count; ++i) {
              if ((wanted[static_cast<size_t>(i / 32)] >> (i % 32) & 1) == 0) continue;
              double sum = 0;
              for (int64_t c = 0; c < width; ++c) {
                sum += double{queries[static_cast<size_t>(q * width + c)]} *
                       (double{embeddings[static_cast<size_t>(i * stride + c)]} -
                        mean[static_cast<size_t>(c)]);
              }
              want.emplace_back(-static_cast<float>(sum), i);
            }
            std::sort(want.begin(), want.end());
            for (int32_t j = 0; j < limit; ++j) {
              const auto at = static_cast<size_t>(q * limit + j);
              if (static_cast<size_t>(j) >= want.size()) {
                ASSERT_EQ(index[at], -1);
                continue;
              }
              ASSERT_EQ(index[at], want[static_cast<size_t>(j)].second) << "result " << j;
              ASSERT_EQ(scores[at], -want[static_cast<size_t>(j)].first);
            }
          }
        }
      }
    }
  }
}

// Their queries take more shared memory than a kernel has unasked.
TEST_F(SearchCudaTest, FindsWideEmbeddings) {
  constexpr int64_t kWidth = 4096;
  Memory memory(Memory::Where::kDevice);
  Floats embeddings(3 * kWidth, 1);
  std::fill_n(embeddings.begin() + kWidth, kWidth, 2.0f);
  SearchParams p;
  p.queries = memory.Put(Floats(kWidth, 1)), p.num_queries = 1;
  p.embeddings = memory.Put(embeddings), p.count = 3, p.width = p.row_stride = kWidth, p.limit = 3;
  p.scores = memory.Put(Floats(3)), p.index = memory.Put(std::vector<int64_t>(3));
  const absl::Status s = Search(p, launch_);
  ASSERT_TRUE(s.ok()) << s;
  EXPECT_EQ(memory.Get(p.index, 3), (std::vector<int64_t>{1, 0, 2}));
  EXPECT_EQ(memory.Get(p.scores, 3), (Floats{2 * kWidth, kWidth, kWidth}));
}

TEST_F(SearchCudaTest, NeverFindsNan) {
  Memory memory(Memory::Where::kDevice);
  Floats embeddings(3 * 8, 1);
  embeddings[8] = kPoison;
  SearchParams p;
  p.queries = memory.Put(Floats(8, 1)), p.num_queries = 1;
  p.embeddings = memory.Put(embeddings), p.count = 3, p.width = p.row_stride = 8, p.limit = 3;
  p.scores = memory.Put(Floats(3)), p.index = memory.Put(std::vector<int64_t>(3));
  ASSERT_TRUE(Search(p, launch_).ok());
  EXPECT_EQ(memory.Get(p.index, 3), (std::vector<int64_t>{0, 2, -1}));
}

}  // namespace
}  // namespace anabranch::kernels::cuda
