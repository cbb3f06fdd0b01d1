// What a model refuses to run. What it promises of its results is in invariants_test.cc.
#include "runtime/model.h"

#include <gtest/gtest.h>

#include "tests/runtime/golden_models.h"
#include "tests/runtime/many_slots.h"

namespace anabranch {
namespace {

class ModelForward : public ::testing::TestWithParam<std::string> {};

TEST_P(ModelForward, RefusesBatchesThatDoNotFitTogether) {
  const auto model = Model::Load(testing::GoldenModelDir(GetParam()), {});
  ASSERT_TRUE(model.ok()) << model.status();
  const int64_t vocab = (*model)->description().vocab;
  testing::ManySlots state((*model)->state_layout(), 1, 1);
  std::vector<int32_t> tokens = {1, 2}, row_start = {0, 2}, slots = {0}, page_start = {0, 1},
                       pages = {0}, rows = {1};
  std::vector<int64_t> positions = {0};
  std::vector<float> logits(vocab);
  const auto run = [&] {
    return (*model)->Forward({tokens, row_start, slots, positions, pages, page_start, rows},
                             state.arrays(), absl::MakeSpan(logits));
  };
  EXPECT_TRUE(run().ok()) << run();
  const auto refused = [&] { return run().code() == absl::StatusCode::kInvalidArgument; };
  const auto with = [&](auto& field, auto value) {
    const auto saved = field;
    field = value;
    const bool result = refused();
    field = saved;
    return result;
  };
  using Ids = std::vector<int32_t>;
  EXPECT_TRUE(with(tokens, Ids{1, 257}));
  EXPECT_TRUE(with(tokens, Ids{-1, 2}));
  EXPECT_TRUE(with(tokens, Ids{1}));
  EXPECT_TRUE(with(row_start, Ids{0, 3}));
  EXPECT_TRUE(with(row_start, Ids{0}));
  EXPECT_TRUE(with(slots, Ids{-1}));
  EXPECT_TRUE(with(slots, Ids{}));
  EXPECT_TRUE(with(positions, std::vector<int64_t>{-1}));
  EXPECT_TRUE(with(rows, Ids{2}));
  EXPECT_TRUE(with(rows, Ids{0, 1}));
  EXPECT_TRUE(with(logits, std::vector<float>(vocab - 1)));
  if ((*model)->state_layout().has_kv()) {
    EXPECT_TRUE(with(positions, std::vector<int64_t>{255}));
    EXPECT_TRUE(with(pages, Ids{-1}));
    EXPECT_TRUE(with(page_start, Ids{0, 2}));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ModelForward, ::testing::ValuesIn(testing::GoldenModels()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace anabranch
