#include "runtime/state_stats.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "gtest/gtest.h"
#include "tests/runtime/test_layouts.h"

namespace anabranch {
namespace {

// A whole state of the layout, whose n-th number is n, with 300 tokens: two blocks.
StateImage Numbered(const StateLayout& layout) {
  StateImage image;
  image.header.token_count = 300;
  image.header.vocab = 4;
  const auto append = [](StateDType dtype, int64_t count, std::string* to) {
    for (int64_t i = 0; i < count; ++i) {
      const double wide = static_cast<double>(i);
      const float narrow = static_cast<float>(i);
      const bool is_wide = dtype == StateDType::kFloat64;
      to->append(
          is_wide ? reinterpret_cast<const char*>(&wide) : reinterpret_cast<const char*>(&narrow),
          is_wide ? 8 : 4);
    }
  };
  for (const StateEntry& entry : layout.entries) {
    if (!entry.paged()) append(entry.stored_dtype, entry.num_elements(), &image.payload.text());
  }
  append(StateDType::kFloat32, 4, &image.payload.text());
  for (const int64_t tokens : {256, 44}) {
    std::string block;
    for (const StateEntry& entry : layout.entries) {
      if (entry.paged()) append(entry.dtype, tokens * entry.shape[1] * entry.shape[2], &block);
    }
    image.kv_blocks.push_back(std::move(block));
  }
  EXPECT_TRUE(SealState(layout, image).ok());
  return image;
}

float Norm(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return static_cast<float>(std::sqrt(sum));
}

TEST(StateStatsTest, EveryTensorHasANormForEachHead) {
  const StateLayout layout = testing::HybridLayout();
  const std::vector<TensorStats> all = ComputeStateStats(layout, Numbered(layout));
  ASSERT_EQ(all.size(), 9u);
  EXPECT_EQ(all[0].kind, StateKind::kWindow);  // [5, 3]: three channels
  ASSERT_EQ(all[0].norms.size(), 3u);
  EXPECT_FLOAT_EQ(all[0].norms[1], Norm({1, 4, 7, 10, 13}));
  EXPECT_EQ(all[1].kind, StateKind::kRecurrent);  // [2, 3, 4]: two heads
  ASSERT_EQ(all[1].norms.size(), 2u);
  EXPECT_FLOAT_EQ(all[1].norms[0], Norm({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(all[1].max_abs, 23);
  EXPECT_EQ(all[2].norms, (std::vector<float>{0, 1}));
  EXPECT_EQ(all[3].kind, StateKind::kKeys);
  EXPECT_EQ(all[3].layer, 1);
  EXPECT_EQ(all[3].shape, (std::vector<int64_t>{300, 1, 2}));
  EXPECT_EQ(all[3].max_abs, 511);
  EXPECT_EQ(all[3].checksum, 0u);
  EXPECT_EQ(all[4].kind, StateKind::kValues);
  EXPECT_EQ(all[3].norms, all[4].norms);
  EXPECT_EQ(all[8].layer, kLastLogitsLayer);
  EXPECT_FLOAT_EQ(all[8].norms[0], Norm({1, 2, 3}));
}

TEST(StateStatsTest, ManyChannelsAreGroupedAndWhatIsNotFiniteIsCounted) {
  StateLayout layout;
  layout.entries.push_back(
      {0, StateKind::kRecurrent, StateDType::kFloat32, {512, 2}, StateDType::kFloat32});
  StateImage image;
  image.header.token_count = 1;
  std::vector<float> values(1024, 1);
  values[0] = std::numeric_limits<float>::infinity();
  values[1] = std::nanf("");
  image.payload.text().assign(reinterpret_cast<const char*>(values.data()), values.size() * 4);
  ASSERT_TRUE(SealState(layout, image).ok());
  const std::vector<TensorStats> all = ComputeStateStats(layout, image);
  ASSERT_EQ(all.size(), 1u);
  ASSERT_EQ(all[0].norms.size(), 64u);
  EXPECT_FLOAT_EQ(all[0].norms[0], std::sqrt(14.0f));
  EXPECT_FLOAT_EQ(all[0].norms[63], 4);
  EXPECT_EQ(all[0].nonfinite_count, 2);
  EXPECT_EQ(all[0].max_abs, 1);
}

}  // namespace
}  // namespace anabranch
